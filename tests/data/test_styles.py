"""Styles by amplitudes and by AdaIN, the latter against modules put together as published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from refocus.data import styles
from refocus.errors import InputError


def _conv(before: int, after: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3)]


def published(width: int = 8) -> tuple[nn.Sequential, nn.Sequential]:
    """The networks in the authors' order, with a few channels in place of 64."""
    a, b, c, d = width, width + 1, width + 2, width + 3
    relu, pool = [nn.ReLU()], [nn.MaxPool2d(2, 2, 0, ceil_mode=True)]
    encoder = [nn.Conv2d(3, 3, 1), *_conv(3, a), *relu, *_conv(a, a), *relu, *pool]
    encoder += [*_conv(a, b), *relu, *_conv(b, b), *relu, *pool, *_conv(b, c), *relu]
    encoder += [*(_conv(c, c) + relu), *(_conv(c, c) + relu), *(_conv(c, c) + relu), *pool]
    encoder += [*_conv(c, d), *relu]
    up = [nn.Upsample(scale_factor=2, mode="nearest")]
    decoder = [*_conv(d, c), *relu, *up, *(_conv(c, c) + relu), *(_conv(c, c) + relu)]
    decoder += [*(_conv(c, c) + relu), *_conv(c, b), *relu, *up, *_conv(b, b), *relu]
    decoder += [*_conv(b, a), *relu, *up, *_conv(a, a), *relu, *_conv(a, 3)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def written(folder: Path, encoder: nn.Module, decoder: nn.Module) -> Path:
    folder.mkdir()
    save_file(encoder.state_dict(), folder / "vgg.safetensors")
    torch.save(decoder.state_dict(), folder / "decoder.pth")
    return folder


def _by_hand(encoder: nn.Module, decoder: nn.Module, pixels: Tensor, looks: Tensor) -> Tensor:
    content, style = encoder(pixels), encoder(looks)

    def moments(features: Tensor) -> tuple[Tensor, Tensor]:
        flat = features.flatten(2)
        deviation = (flat.var(2) + 1e-5).sqrt()
        return flat.mean(2)[..., None, None], deviation[..., None, None]

    (mean, deviation), (other, others) = moments(content), moments(style)
    mixed = 0.5 * content + 0.5 * ((content - mean) / deviation * others + other)
    return decoder(mixed).clamp(0, 1)


def test_adain_is_that_of_the_published_modules(tmp_path: Path) -> None:
    encoder, decoder = published()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        if parameter.ndim > 1:  # else nothing of the image is left behind 18 layers
            nn.init.kaiming_normal_(parameter)
    decoder[-1].weight.data *= 0.05  # nor clamped away
    decoder[-1].bias.data.fill_(0.5)
    unused = nn.Sequential(*encoder, *_conv(11, 11))  # the published file goes on to relu5_4
    way = styles.adain(written(tmp_path / "adain", unused, decoder))
    pixels, looks = torch.rand(2, 3, 32, 40), torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        expected = _by_hand(encoder, decoder, pixels, looks)
    assert float(expected.std((2, 3)).max()) > 0.01
    torch.testing.assert_close(way(pixels, looks, 0.5), expected)
    assert not torch.allclose(way(pixels, looks, 1.0), expected)
    assert way(pixels[..., :28, :34], looks, 1.0).shape == (2, 3, 28, 34)
    decoder[-1].bias.data.fill_(0.25)
    torch.save(decoder.state_dict(), tmp_path / "adain" / "decoder.pth")  # in the place of the old
    assert float(styles.adain(tmp_path / "adain").decoder[-1][1][0]) == 0.25


def test_moved_features_have_the_moments_of_the_style() -> None:
    content, style = torch.randn(2, 4, 6, 6), 3 * torch.randn(2, 4, 5, 7) + 1
    moved = styles.normalized_to(content, style)
    torch.testing.assert_close(moved.mean((2, 3)), style.mean((2, 3)))
    torch.testing.assert_close(moved.std((2, 3)), style.std((2, 3)), atol=1e-4, rtol=1e-4)


def test_other_networks_and_missing_files_are_refused(tmp_path: Path) -> None:
    encoder, decoder = published()
    folder = written(tmp_path / "a", encoder, decoder[:-2])
    with pytest.raises(InputError, match="not the published networks"):
        styles.adain(folder)
    torch.save({"layers.0.conv.weight": torch.zeros(3, 3, 1, 1)}, folder / "vgg.pth")
    with pytest.raises(InputError, match="not the published networks"):  # none is numbered as there
        styles.adain(folder)
    (folder / "decoder.pth").unlink()
    with pytest.raises(InputError, match=r"decoder\.safetensors is missing"):
        styles.adain(folder)
    (folder / "decoder.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"decoder\.pth"):
        styles.adain(folder)


def test_stylization_takes_amplitudes_and_leaves_phases() -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = 0.5 + 0.02 * torch.randn(1, 3, 16, 16, generator=generator)
    looks = 0.5 + 0.02 * torch.randn(1, 3, 16, 16, generator=generator)
    made = styles.by_amplitudes(pixels, looks, 1.0)
    assert 0 < float(made.min()) < float(made.max()) < 1  # nothing was clamped
    torch.testing.assert_close(
        torch.fft.fft2(made).abs(), torch.fft.fft2(looks).abs(), atol=1e-4, rtol=0
    )
    turn = torch.fft.fft2(made) * torch.fft.fft2(pixels).conj()
    assert float((turn.imag.abs() - 1e-3 * turn.abs()).max()) < 1e-3
    torch.testing.assert_close(styles.by_amplitudes(pixels, looks, 0.0), pixels, atol=1e-5, rtol=0)
