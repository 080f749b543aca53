"""Who reads images ahead: nobody on a CPU; what is handed over can be sent to any process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import refocus
from refocus import AuditSettings, MaskSettings, ProbeSettings, Recipe, ShiftSettings

Call = Callable[[str, Path, Path, Path], Any]  # model, images, masks, out


def audit(model: str, images: Path, masks: Path, out: Path) -> None:
    refocus.audit(model, images, out, masks=masks, settings=AuditSettings(most=4))


def shifts(_model: str, images: Path, masks: Path, out: Path) -> None:
    refocus.shifts(images, masks, out, ShiftSettings(("only-fg",)))


def found_masks(model: str, images: Path, _masks: Path, out: Path) -> None:
    refocus.find_masks(images, out, MaskSettings(model, size=64, refine="none"))


def probe(model: str, images: Path, masks: Path, out: Path) -> None:
    settings = ProbeSettings(("cutout", "shapes"), masks=str(masks), most=4)
    refocus.probe(model, out, settings, images=images)


def tune(model: str, images: Path, masks: Path, out: Path) -> None:
    recipe = Recipe(model, str(images), str(masks), objective="finetune", epochs=1)
    refocus.tune(recipe, out, progress=False)


@pytest.mark.parametrize("command", [audit, shifts, found_masks, probe, tune])
def test_on_a_cpu_nobody_reads_ahead_and_all_could(
    command: Call,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine, seen = DataLoader.__init__, list[int]()

    def init(self: Any, dataset: Any, *more: Any, **given: Any) -> None:
        # where processes are spawned, as on macOS and Windows, they receive it this way
        pickle.loads(pickle.dumps((dataset, given.get("collate_fn"))))
        seen.append(given.get("num_workers", 0))
        genuine(self, dataset, *more, **given)

    monkeypatch.setattr(DataLoader, "__init__", init)
    command(str(model_folder), *image_folders, tmp_path / "out")
    assert set(seen) == {0}


def test_a_run_goes_on_with_other_workers(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = map(str, image_folders)
    recipe = Recipe(str(model_folder), images, masks, objective="finetune", epochs=1, workers=0)
    found = refocus.tune(recipe, tmp_path / "run", progress=False)
    again = Recipe(str(model_folder), images, masks, objective="finetune", epochs=1, workers="auto")
    assert refocus.tune(again, tmp_path / "run", progress=False) == found
