"""Turned, shifted, cut into other patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from refocus.errors import InputError
from refocus.probes import choice, spatial
from refocus.probes.batch import Batch
from refocus.probes.tools import perturbations as change
from tests.makers import Build
from tests.own_vit import OwnViT
from tests.probes.makers import batch


def test_a_quarter_turn_is_that_of_numpy() -> None:
    pixels = torch.rand(3, 3, 12, 12)
    degrees = torch.tensor([90.0, -90.0, 180.0])
    expected = torch.stack(
        [torch.rot90(p, k, (1, 2)) for p, k in zip(pixels, (1, -1, 2), strict=True)]
    )
    torch.testing.assert_close(change.turn(pixels, degrees), expected, atol=1e-5, rtol=0)


def test_a_small_turn_is_that_of_scipy_also_in_an_oblong_image() -> None:
    smooth = torch.rand(1, 1, 4, 6)
    pixels = torch.nn.functional.interpolate(smooth, (20, 30), mode="bilinear")
    found = change.turn(pixels.expand(1, 3, -1, -1), torch.tensor([10.0]))[0, 0].numpy()
    expected = ndimage.rotate(pixels[0, 0].numpy(), 10, reshape=False, order=1, mode="reflect")
    assert np.abs(found - expected).max() < 1e-3


def test_a_shift_of_whole_pixels_moves_the_image_and_mirrors_its_edge() -> None:
    pixels = torch.rand(1, 3, 10, 20)
    found = change.shift(pixels, torch.tensor([[0.2, -0.1]]))  # 2 down, 2 left
    padded = np.pad(pixels[0].numpy(), ((0, 0), (2, 0), (0, 2)), mode="symmetric")
    torch.testing.assert_close(found[0], torch.from_numpy(padded[:, :10, 2:]), atol=1e-5, rtol=0)


def test_each_image_has_a_side_and_a_direction_of_its_own() -> None:
    seeds = list(range(200))
    sides, ways = change.signs(seeds), change.directions(seeds)
    assert set(sides.tolist()) == {-1, 1}
    assert abs(float(sides.mean())) < 0.3
    torch.testing.assert_close(ways.norm(dim=1), torch.ones(200))
    assert float(ways.mean(0).norm()) < 0.2
    assert torch.equal(ways[:3], change.directions(seeds[:3]))


def test_patches_of_another_size_show_what_the_models_own_patches_see(tiny: Build) -> None:
    model, whole = tiny(img_size=38), tiny(img_size=32)
    whole.load_state_dict(model.state_dict())
    b = batch(whole, 40)
    wider = torch.nn.functional.pad(b.pixels, (0, 6, 0, 6), value=1.0)
    assert spatial.patch_sizes(model) == spatial.patch_sizes(whole)
    found = spatial.patches(replace(b, model=model, pixels=wider))
    assert torch.equal(found["resampled"], spatial.patches(b)["resampled"])


def test_patches_are_the_models_own_first_and_answers_are_those_of_its_copies(tiny: Build) -> None:
    b = batch(tiny(), 6)
    assert spatial.patch_sizes(b.model) == ["8 (its own)", "4", "6", "12", "16"]
    found = spatial.patches(b)["resampled"]
    assert found.shape == (6, 5)
    twin = tiny()
    twin.load_state_dict(b.model.state_dict())
    twin.set_input_size(img_size=(32, 32), patch_size=(4, 4))
    twin.patch_embed.proj.weight.data = twin.patch_embed.proj.weight.data.contiguous()
    with torch.no_grad():
        right = twin(b.normalized(b.pixels)).argmax(1) == b.labels
    assert torch.equal(found[:, 1], right.float())


def test_an_image_of_the_mean_colour_stays_so_in_smaller_patches(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        Batch, "top1", lambda b, pixels: seen.append(b.normalized(pixels)) or torch.ones(2)
    )
    b = batch(tiny(), 2)
    mean = torch.tensor(b.model.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    spatial.patches(replace(b, pixels=mean.expand_as(b.pixels)))
    assert len(seen) == 5
    assert all(pixels.abs().max() < 1e-5 for pixels in seen)


def test_a_model_of_ones_own_is_refused() -> None:
    with pytest.raises(InputError, match="does not say how its positions are embedded"):
        choice.supported(["patches"], ["patches"], [OwnViT()])
