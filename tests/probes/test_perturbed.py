"""The maths of the probes that perturb images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from refocus.probes import perturbed
from refocus.probes.batch import answers
from refocus.probes.tools.perturbations import fourier_basis
from tests.makers import Build, make_images
from tests.probes.makers import batch


def test_occlusion_takes_the_salient_patches_first_or_last(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = batch(tiny(), 2)
    seen: dict[str, list[Tensor]] = {}
    for series, pixels in perturbed.occlusion(b):
        seen.setdefault(series, []).append(pixels)
    relevance = b.saliency
    for series, best in (
        ("salient first", relevance.argmax(1)),
        ("salient last", relevance.argmin(1)),
    ):
        black = seen[series][1].unfold(2, 8, 8).unfold(3, 8, 8).sum((1, 4, 5)).flatten(1) == 0
        assert black.sum(1).tolist() == [2, 2]  # a tenth of 16 patches
        assert black[torch.arange(2), best].all()
    assert torch.equal(
        seen["salient first"][5] + seen["salient last"][5], b.pixels
    )  # the two halves
    assert all(torch.equal(s[-1], torch.zeros_like(b.pixels)) for s in seen.values())
    attention = batch(b.model, 2, saliency="attention")
    torch.testing.assert_close(attention.saliency.sum(1), torch.ones(2))


def test_occlusion_blackens_the_pixels_that_the_models_patches_see(tiny: Build) -> None:
    b = replace(batch(tiny(img_size=38), 2), pixels=torch.rand(2, 3, 38, 38) + 0.1)
    for _, pixels in perturbed.occlusion(b):
        cells = pixels[..., :32, :32].unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
        assert torch.equal((cells == 0).any(4), (cells == 0).all(4))
        assert torch.equal(pixels[..., 32:], b.pixels[..., 32:])


def test_the_heat_map_covers_half_of_the_plane_once(tiny: Build) -> None:
    levels = [tuple(map(int, str(level).split(","))) for level in perturbed.frequencies(tiny())]
    waves = torch.stack([fourier_basis(32, 32, row, column).flatten() for row, column in levels])
    same = (waves @ waves.T).abs() > 0.99
    assert torch.equal(same, torch.eye(34, dtype=torch.bool))  # each once
    every = {(sign * row % 32, sign * column % 32) for row, column in levels for sign in (1, -1)}
    assert every == {
        (row % 32, column % 32) for row in range(-16, 17, 4) for column in range(-16, 17, 4)
    }  # and all of them


def test_perturbed_answers_are_those_of_the_perturbed_pixels(tiny: Build) -> None:
    b = batch(tiny(), 6)
    found = answers(b, perturbed.cutout)["hole"]
    views = [pixels for _, pixels in perturbed.cutout(b)]
    for column, pixels in enumerate(views):
        assert torch.equal(found[:, column], (b.logits(pixels).argmax(1) == b.labels).float())
    assert not torch.equal(views[0], views[-1])


def test_styles_are_named_by_what_made_them(
    tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path)
    b = batch(tiny(), 2, styles=tmp_path / "images")
    assert {name for name, _ in perturbed.stylization(b)} == {"Fourier amplitudes"}
    monkeypatch.setattr(perturbed.styles, "adain", lambda _folder: lambda p, _looks, s: p * s)
    b = batch(b.model, 2, styles=tmp_path / "images", adain=tmp_path)
    seen: dict[str, list[Tensor]] = {}
    for name, pixels in perturbed.stylization(b):
        seen.setdefault(name, []).append(pixels)
    assert list(seen) == ["Fourier amplitudes", "AdaIN"]
    assert torch.equal(seen["AdaIN"][0], b.pixels)
    assert torch.equal(seen["AdaIN"][2], 0.5 * b.pixels)
