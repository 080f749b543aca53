"""Perturbations of pixels, pure functions.

Axes: pixels `[B, 3, H, W]` in [0, 1], masks `[B, 1, H, W]` in [0, 1].

Everything random is drawn from one seed per image, so that two models see the same and a resumed
run gives the same results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from skimage.feature import canny
from torch import Tensor
from torch.nn import functional as F

from refocus.relevance.gae import stretched

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
_EDGE_SCALE = 1.5  # Canny's Gaussian in pixels of an image of 168


def generator(seed: int) -> torch.Generator:
    """A generator of its own for an image."""
    return torch.Generator().manual_seed(seed)


# --- patches ------------------------------------------------------------------------------------


def random_order(count: int, seeds: Sequence[int]) -> Tensor:
    """For each image an order of its `count` patches: `[B, count]`."""
    return torch.stack([torch.randperm(count, generator=generator(seed)) for seed in seeds])


def occlude(
    pixels: Tensor,
    grid: tuple[int, int],
    order: Tensor,
    share: float,
    covered: tuple[int, int] | None = None,
) -> Tensor:
    """Turn the first `share` of the patches in `order` `[B, h * w]` black.

    Naseer et al., NeurIPS 2021. covered: rows and columns of pixels that the patches cover, beyond
    which pixels stay; None: all.
    """
    gone = torch.ones(order.shape, dtype=pixels.dtype, device=pixels.device)
    gone.scatter_(1, order[:, : round(share * order.shape[1])].to(pixels.device), 0.0)
    size = pixels.shape[-2:]
    return pixels * stretched(gone.unflatten(1, (1, *grid)), size, covered, beyond=1.0)


def permute_cells(pixels: Tensor, count: int, seeds: Sequence[int]) -> Tensor:
    """The image cut into `count` x `count` cells in random order.

    Pixels that do not fill a cell stay, as a border.
    """
    height, width = (side // count * count for side in pixels.shape[-2:])
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    inside = pixels[..., top : top + height, left : left + width]
    cells = (
        inside.unflatten(3, (count, -1))
        .unflatten(2, (count, -1))
        .permute(0, 2, 4, 1, 3, 5)
        .flatten(1, 2)
    )  # [B, n, 3, p, q]
    order = random_order(count * count, seeds)
    mixed = torch.stack([image[turn] for image, turn in zip(cells, order, strict=True)])
    back = mixed.unflatten(1, (count, count)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    out = pixels.clone()
    out[..., top : top + height, left : left + width] = back
    return out


def boxes(
    size: tuple[int, int], share: float, seeds: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """For each image a box of `share` of the area and the image's shape, somewhere inside.

    1 in the box, `[B, 1, H, W]`.
    """
    height, width = size
    tall, wide = round(math.sqrt(share) * height), round(math.sqrt(share) * width)
    found = torch.zeros(len(seeds), 1, height, width, dtype=dtype)
    for box, seed in zip(found, seeds, strict=True):
        spot = torch.rand(2, generator=generator(seed))
        top, left = int(spot[0] * (height - tall + 1)), int(spot[1] * (width - wide + 1))
        box[:, top : top + tall, left : left + wide] = 1
    return found


# --- turned and shifted -------------------------------------------------------------------------


def signs(seeds: Sequence[int]) -> Tensor:
    """-1 or 1 for each image: `[B]`."""
    return torch.tensor([_uniform(seed) < 0.5 for seed in seeds]).float() * 2 - 1


def directions(seeds: Sequence[int]) -> Tensor:
    """A direction for each image, down and right, of length 1: `[B, 2]`."""
    angles = torch.tensor([2 * math.pi * _uniform(seed) for seed in seeds])
    return torch.stack([angles.sin(), angles.cos()], dim=1)


def _uniform(seed: int) -> float:
    return float(torch.rand((), generator=generator(seed)))


def turn(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Images turned counterclockwise about their centre, `[B]` degrees; edges are mirrored."""
    angles = torch.deg2rad(degrees)
    height, width = pixels.shape[-2:]
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = [cosine, -sine * height / width, zero], [sine * width / height, cosine, zero]
    return _resampled(pixels, torch.stack([torch.stack(row, dim=1) for row in rows], dim=1))


def shift(pixels: Tensor, shares: Tensor) -> Tensor:
    """Images moved down and right by shares of their sides `[B, 2]`; edges are mirrored."""
    still = torch.eye(2).expand(len(pixels), 2, 2)
    return _resampled(pixels, torch.cat([still, -2 * shares.flip(1)[..., None]], dim=2))


def _resampled(pixels: Tensor, theta: Tensor) -> Tensor:
    """Each image where an affine map `[B, 2, 3]` of its places says, bilinear."""
    grid = F.affine_grid(theta.to(pixels), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


# --- frequencies --------------------------------------------------------------------------------


def frequency_radius(height: int, width: int) -> Tensor:
    """Distance of each frequency from zero, 1 at the highest along an axis.

    `[H, W]` in the order of `torch.fft.fft2`.
    """
    vertical, horizontal = torch.fft.fftfreq(height) * 2, torch.fft.fftfreq(width) * 2
    return torch.hypot(vertical[:, None], horizontal[None])


def low_pass(pixels: Tensor, radius: float) -> Tensor:
    """Frequencies within `radius` (1: the highest along an axis) stay (Ghiasi et al., 2022)."""
    return _filtered(pixels, frequency_radius(*pixels.shape[-2:]) <= radius)


def high_pass(pixels: Tensor, radius: float) -> Tensor:
    """Keep frequencies beyond `radius`, and the mean colour.

    Without it nothing could be shown in [0, 1].
    """
    keep = frequency_radius(*pixels.shape[-2:]) > radius
    keep[0, 0] = True
    return _filtered(pixels, keep)


def _filtered(pixels: Tensor, keep: Tensor) -> Tensor:
    values: Tensor = torch.fft.ifft2(torch.fft.fft2(pixels) * keep.to(pixels.device)).real.clamp(
        0, 1
    )
    return values


def fourier_basis(height: int, width: int, row: int, column: int) -> Tensor:
    """The real image of one frequency (and its mirror), of Euclidean norm 1: `[H, W]`.

    Yin et al., NeurIPS 2019.
    """
    spectrum = torch.zeros(height, width, dtype=torch.complex64)
    spectrum[row % height, column % width] += 1
    spectrum[-row % height, -column % width] += 1
    wave = torch.fft.ifft2(spectrum).real
    values: Tensor = wave / wave.norm()
    return values


def fourier_noise(
    pixels: Tensor, row: int, column: int, norm: float, seeds: Sequence[int]
) -> Tensor:
    """Each channel plus one frequency of this norm, with a random sign for each channel."""
    wave = fourier_basis(pixels.shape[-2], pixels.shape[-1], row, column).to(pixels)
    signs = torch.stack(
        [torch.randint(0, 2, (3, 1, 1), generator=generator(seed)) * 2 - 1 for seed in seeds]
    )
    return (pixels + norm * signs.to(pixels) * wave).clamp(0, 1)


# --- shapes -------------------------------------------------------------------------------------


def silhouettes(masks: Tensor) -> Tensor:
    """The object black on white (Geirhos et al., ICLR 2019)."""
    return (1 - masks).expand(-1, 3, -1, -1)


def edges(pixels: Tensor, masks: Tensor) -> Tensor:
    """Canny's edges within the object, and its outline, black on white."""
    drawn = [
        _edges(image, mask[0] > 0.5)
        for image, mask in zip(pixels.cpu().double(), masks.cpu(), strict=True)
    ]
    return 1 - torch.stack(drawn).to(pixels)[:, None].expand(-1, 3, -1, -1)


def _edges(image: Tensor, inside: Tensor) -> Tensor:
    grey = torch.einsum("chw,c->hw", image, torch.tensor(_GREY, dtype=image.dtype))
    scale = _EDGE_SCALE * min(inside.shape) / 168
    found = canny(grey.numpy(), sigma=scale) & inside.numpy()
    padded = np.pad(inside.numpy(), 1)
    core = padded[1:-1, :-2] & padded[1:-1, 2:] & padded[:-2, 1:-1] & padded[2:, 1:-1]
    return torch.from_numpy(found | (inside.numpy() & ~core))
