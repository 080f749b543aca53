"""The same numbers on a GPU; skipped where there is none (`benchmarks/gpu.sh` runs these)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import refocus
from refocus import Recipe
from tests.makers import Build, masked_batch, original_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", ["relevance", "energy", "refocus", "consistency", "finetune"])
def test_a_step_is_that_of_the_cpu(name: str, tiny: Build) -> None:
    images, masks, labels = masked_batch()
    model, original = tiny(), tiny()
    found = {}
    for device in ("cpu", "cuda"):
        step = refocus.objective(name, **original_of(name, original.to(device)))
        batch = (part.to(device) for part in (images, masks, labels))
        loss = step(model.to(device), *batch)["loss"]
        loss.backward()
        gradient = next(model.parameters()).grad
        assert gradient is not None
        found[device] = loss.item(), gradient.cpu().clone()
        model.zero_grad()
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=1e-3)
    assert torch.allclose(found["cuda"][1], found["cpu"][1], rtol=1e-2, atol=1e-5)


def test_a_map_is_that_of_the_cpu(tiny: Build) -> None:
    model, (images, *_) = tiny(), masked_batch()
    on_cpu = refocus.explain(model, images)
    on_gpu = refocus.explain(model.cuda(), images.cuda())
    assert torch.allclose(on_gpu.relevance.cpu(), on_cpu.relevance, atol=1e-3)


def test_tune_and_audit_run(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = map(str, image_folders)
    recipe = Recipe(model=str(model_folder), images=images, masks=masks, epochs=1, device="cuda")
    refocus.tune(recipe, tmp_path / "run", progress=False)
    settings = refocus.AuditSettings(device="cuda")
    found = refocus.audit(
        str(tmp_path / "run"), images, tmp_path / "audit", masks=masks, settings=settings
    )
    assert found.verdict
