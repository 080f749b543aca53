"""The table of probes."""

from __future__ import annotations

import pytest
import torch

from refocus.errors import InputError
from refocus.probes import choice, registry
from refocus.probes.batch import Options
from tests.makers import Build
from tests.probes.makers import batch
from tests.zoo import ZOO


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, row in registry.PROBES.items()
        if row.first == 1 and not row.needs and row.unit == registry.TOP1
    ],
)
def test_the_first_level_of_a_disturbance_is_none(name: str, tiny: Build) -> None:
    b = batch(tiny(), 8)
    found = registry.PROBES[name].measure(b)
    for series, values in found.items():
        assert values.shape == (8, len(registry.PROBES[name].levels_of(b.model))), series
        assert torch.equal(values[:, 0], b.top1(b.pixels))


def test_all_leaves_out_what_cannot_be_run_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="refocus"):
        found = choice.names(["all"], Options())
    assert "cutout" in found
    assert not {
        "shapes",
        "stylization",
        "shape-bias",
        "imagenet-c",
        "attention-segmentation",
    } & set(found)
    assert "shapes is left out: it needs masks" in caplog.text


def test_all_leaves_out_what_a_model_cannot_take_unless_it_was_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parallel, oblong = (ZOO["ViT"][name]() for name in ("parallel attention and MLP", "non-square"))
    with caplog.at_level("INFO", logger="refocus"):
        assert choice.supported(["surgery", "cutout"], ["all"], [parallel]) == ["cutout"]
        assert choice.supported(["rotation", "cutout"], ["all"], [oblong]) == ["cutout"]
    assert "surgery is left out" in caplog.text
    with pytest.raises(InputError, match="cannot be taken out alone"):
        choice.supported(["surgery", "cutout"], ["all", "surgery"], [parallel])


@pytest.mark.parametrize("name", ["shapes", "attention-segmentation"])
def test_an_image_whose_object_is_out_of_the_crop_is_not_asked(tiny: Build, name: str) -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 8:24, 8:24] = 1
    found = registry.PROBES[name].measure(batch(tiny(), 2, masks=masks))
    for values in found.values():
        assert not values[0].isnan().any()
        assert values[1].isnan().all()
