"""A tiny planted data set and Waterbirds-like one, and options of the field."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.makers import NAMES, make_images


def planted(root: Path, count: int = 8) -> Path:
    """4 classes with exact masks: tune, test_same and test_shuffled."""
    for seed, split in enumerate(("tune", "test_same", "test_shuffled")):
        make_images(root / split, NAMES, count if split == "tune" else 2, seed)
    return root


def birds(root: Path) -> Path:
    """Two classes on two places: in training and validation 6 on their own, 2 on the other one."""
    names = ["landbird", "waterbird"]
    rows = []
    for seed, split in enumerate(("train", "val", "test_aligned", "test_conflict", "test_natural")):
        make_images(root / split, names, 8, seed)
        for name in names:
            for position in range(8):
                own, other = (n.removesuffix("bird") for n in (name, *(set(names) - {name})))
                file = root / split / "images" / name / f"{position}.png"
                stem = f"{split}-{name}-{position}"
                mask = root / split / "masks" / name / file.name
                file.rename(file.with_stem(stem))
                mask.rename(mask.with_stem(stem))
                place = own if position < 6 else other
                rows.append({"split": split, "class": name, "stem": stem, "place": place})
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file_:
        writer = csv.DictWriter(file_, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def options(phase: str, root: Path, model: Path, out: Path, *more: object) -> list[str]:
    """Arguments of `evidence.field` for the tiny planted set."""
    given = ("--data", f"planted={root}", "--model", f"planted={model}", "--out", out)
    own = ("--images", 2, "--steps", 2, "--budgets", "steps", "--draws", 0, 1)
    return [phase, *map(str, (*given, *own, *more))]
