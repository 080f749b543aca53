"""The presets are the paper's tables."""

from __future__ import annotations

import pytest
import timm

from refocus import InputError
from refocus.tuning import presets


def test_presets_are_tables_5_to_7() -> None:
    assert presets.preset("ViT-B")["lr"] == 3e-6
    assert presets.preset("DeiT-S", "gradmask-as-published") == {
        "model": "deit_small_patch16_224.fb_in1k", "lr": 5e-3, "temperature": 1.0,
        "weights": {"classification": 3e-9, "background": 50.0},
    }  # fmt: skip
    assert presets.preset("DeiT-B")["temperature"] == 0.65
    assert {row["timm"] for row in presets.presets().values() if "timm" in row} <= set(
        timm.list_pretrained()
    )
    with pytest.raises(InputError, match="no longer in timm"):
        presets.preset("ViT-L")
    assert presets.preset("ViT-L", model="mine")["model"] == "mine"
    with pytest.raises(InputError, match=r"objective rrr-as-published; choose one of relevance$"):
        presets.preset("AR-L", "rrr-as-published")
    with pytest.raises(InputError, match=r"preset ViT-X: unknown; choose one of ViT-B"):
        presets.preset("ViT-X")


@pytest.mark.parametrize(
    "objective",
    ["gradmask", "rrr", "relevance-exact", "refocus", "gradmask-as-published-as-published", ""],
)
def test_a_preset_belongs_to_the_objective_that_it_was_published_for(objective: str) -> None:
    message = (
        f"preset ViT-B: was not published for objective {objective}; choose one of relevance, "
        "rrr-as-published, gradmask-as-published"
    )
    with pytest.raises(InputError, match=message):
        presets.preset("ViT-B", objective)
