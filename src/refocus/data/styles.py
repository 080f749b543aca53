"""The texture and colours of one picture on the shapes of another.

By Fourier amplitudes, which needs nothing, or by AdaIN (Huang and Belongie, ICCV 2017), which needs
the weights that its authors trained. Pixels `[B, 3, H, W]` in [0, 1].
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from refocus.errors import InputError
from refocus.fingerprints import State, state
from refocus.vit.checkpoints import read_weights

FOURIER, ADAIN = "Fourier amplitudes", "AdaIN"
_FILES = {"encoder": ("vgg", "vgg_normalised"), "decoder": ("decoder",)}
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_CONVOLUTIONS = 9  # of VGG-19 up to relu4_1, and of the decoder
_POOLED = (2, 4, 8)  # after so many of the encoder's
_ENLARGED = (1, 5, 7)  # after so many of the decoder's
_EPSILON = 1e-5
_Layer = tuple[Tensor, Tensor]  # weight and bias of a convolution


def by_amplitudes(pixels: Tensor, styles: Tensor, strength: float) -> Tensor:
    """Amplitudes of the spectrum moved by `strength` in [0, 1] to those of a style image.

    Phases are kept: textures and colours change, shapes stay, for phases carry them (Oppenheim &
    Lim, 1981; so used by Xu et al., CVPR 2021).
    """
    own, other = torch.fft.fft2(pixels), torch.fft.fft2(styles)
    amplitude = (1 - strength) * own.abs() + strength * other.abs()
    values: Tensor = torch.fft.ifft2(torch.polar(amplitude, own.angle())).real.clamp(0, 1)
    return values


@dataclass(frozen=True)
class Adain:
    """The published networks: a convolution that normalizes, VGG-19 up to relu4_1, a decoder."""

    first: _Layer
    encoder: tuple[_Layer, ...]
    decoder: tuple[_Layer, ...]

    def __call__(self, pixels: Tensor, styles: Tensor, strength: float) -> Tensor:
        """Pixels with the mean and deviation of the styles' features, moved by `strength`."""
        with torch.no_grad():
            content = self.features(pixels)
            moved = normalized_to(content, self.features(styles))
            decoded = self.decoded(strength * moved + (1 - strength) * content)
        height, width = pixels.shape[-2:]
        return decoded[..., :height, :width].clamp(0, 1)

    def features(self, pixels: Tensor) -> Tensor:
        """relu4_1, an eighth of the sides rounded up."""
        weight, bias = (part.to(pixels) for part in self.first)
        found = F.conv2d(pixels, weight, bias)
        for number, layer in enumerate(self.encoder, 1):
            found = _convolved(found, layer).relu()
            if number in _POOLED:
                found = F.max_pool2d(found, 2, ceil_mode=True)
        return found

    def decoded(self, features: Tensor) -> Tensor:
        """Features of relu4_1 as pixels, eight times as large."""
        found = features
        for number, layer in enumerate(self.decoder, 1):
            found = _convolved(found, layer)
            if number < len(self.decoder):
                found = found.relu()
            if number in _ENLARGED:
                found = F.interpolate(found, scale_factor=2, mode="nearest")
        return found


def normalized_to(content: Tensor, style: Tensor) -> Tensor:
    """Features with the mean and deviation of the style's, by image and channel (Eq. 8)."""
    means, deviations = zip(*(_moments(part) for part in (content, style)), strict=True)
    moved: Tensor = (content - means[0]) / deviations[0] * deviations[1] + means[1]
    return moved


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    mean = features.mean((2, 3), keepdim=True)
    return mean, (features.var((2, 3), keepdim=True) + _EPSILON).sqrt()


def _convolved(features: Tensor, layer: _Layer) -> Tensor:
    weight, bias = (part.to(features) for part in layer)
    return F.conv2d(F.pad(features, (1, 1, 1, 1), mode="reflect"), weight, bias)


def adain(folder: Path) -> Adain:
    """The networks of a folder: `vgg` (or `vgg_normalised`) and `decoder`, .safetensors or .pth.

    Raises:
        InputError: a file is missing or holds other networks.
    """
    files = {part: _file(folder, names) for part, names in _FILES.items()}
    encoder, decoder = files["encoder"], files["decoder"]
    return _adain(folder, encoder, decoder, (state(encoder), state(decoder)))


@lru_cache(maxsize=2)
def _adain(folder: Path, vgg: Path, mirrored: Path, _states: tuple[State, State]) -> Adain:
    encoder, decoder = _layers(vgg)[: 1 + _CONVOLUTIONS], _layers(mirrored)
    if not _fits(encoder, decoder):
        raise InputError(
            f"‹adain› {folder}: not the published networks: a 1 x 1 convolution and VGG-19 up to "
            f"relu4_1, and a decoder of {_CONVOLUTIONS} convolutions from its channels to 3"
        )
    return Adain(encoder[0], encoder[1:], decoder)


def _fits(encoder: tuple[_Layer, ...], decoder: tuple[_Layer, ...]) -> bool:
    chain = [weight for weight, _ in (*encoder, *decoder)]
    sides = [1] + [3] * (2 * _CONVOLUTIONS)
    return (
        len(decoder) == _CONVOLUTIONS
        and all(w.ndim == 4 for w in chain)
        and [w.shape[-1] for w in chain] == sides
        and all(a.shape[0] == b.shape[1] for a, b in pairwise(chain))
        and chain[0].shape[1] == chain[-1].shape[0] == len("RGB")
    )


def _file(folder: Path, names: tuple[str, ...]) -> Path:
    wanted = [folder / f"{name}{suffix}" for name in names for suffix in _SUFFIXES]
    found = next((file for file in wanted if file.is_file()), None)
    if found is None:
        raise InputError(
            f"‹adain› {folder}: {wanted[0].name} is missing; must hold vgg and decoder as "
            ".safetensors or .pth"
        )
    return found


def _layers(file: Path) -> tuple[_Layer, ...]:
    """Weights and biases in the order of the layers, whose numbers are in the names."""
    weights = read_weights(file, f"‹adain› {file}")
    numbers = sorted(
        (int(match[1]), match[0].removesuffix("weight"))
        for name in weights
        if (match := re.fullmatch(r"(?:\w+\.)?(\d+)\.weight", name))
    )
    try:
        return tuple((weights[f"{p}weight"], weights[f"{p}bias"]) for _, p in numbers)
    except KeyError as error:
        raise InputError(f"‹adain› {file}: has no {error}") from error
