"""Seconds of what an audit and a report measure: as it was, as it is, and in bfloat16.

    python benchmarks/shifts.py --images FOLDER --masks FOLDER --model MODEL [--count 40]
        [--size 500 375] [--only audit report] [--ways old fp32 bf16] [--models 1]
        [--threads 2]

`old`: what versions before had. Each kind and level walks through all images for itself and each
model, and a mask's margin is a pooling over a square window. `fp32` and `bf16`: as it is, with that
`--precision`. All in the same run on the same files: answers on the images as they are, maps, and
all shifts, in one process (what is missing to a command is its page), in processor seconds of one
thread, or with --threads in seconds on the wall of so many, for which the machine must be idle. A
report compares two models; here both are MODEL. --size enlarges the images first.

What differs from `fp32`, or from the first way if that is not among them: answers (the first class)
of all that were asked; top-1 of a stage in points, on average and at most; the share of the
relevance on the background, of the mean over images and of an image at most.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import measure
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from refocus import load
from refocus.data import composites, shifts
from refocus.data.folders import folder_samples
from refocus.evaluation import prove
from refocus.evaluation.abreast import Stage
from refocus.evaluation.classify import SuiteResult, answers_on
from refocus.evaluation.plan import Plan
from refocus.evaluation.suites import TestSet
from refocus.records import MapRecord, Prediction, Sample, read_records
from refocus.reports import audit, before_after
from refocus.vit.loading import Models
from refocus.vit.precision import computing

WAYS = ("old", "fp32", "bf16")
KINDS = {
    "audit": (audit.SHIFTS, 1),
    "report": ((*before_after.SHIFTS, *shifts.unseen(real=False)), 2),
}


def copied(source: list[Sample], folder: Path, size: tuple[int, int] | None) -> None:
    for sample in source:
        assert sample.mask is not None
        for part, file, how in (("images", sample.image, 3), ("masks", sample.mask, 0)):
            target = folder / part / sample.image.parent.name / f"{sample.image.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.open(file)
            (picture.resize(size, how) if size else picture).save(target)


def pooled(masks: Tensor, margin: float = 0.04) -> Tensor:
    """`widened` as it was."""
    pixels = round(margin * min(masks.shape[-2:]))
    return F.max_pool2d(masks, 2 * pixels + 1, 1, pixels) if pixels else masks


def one_by_one(
    models: Models,
    tests: dict[str, TestSet],
    stages: Sequence[Stage],
    folder: Path,
    **how: Any,
) -> dict[str, dict[str, SuiteResult]]:
    """`answer_stages` as it was."""
    return {
        stage.name: {
            which: answers_on(
                model,
                replace(tests[which], samples=stage.samples[which], read=stage.shift),
                records=folder / f"{stage.name}.{which}.jsonl",
                **how,
            )
            for which, model in models.items()
        }
        for stage in stages
    }


def seconds(way: str, models: Models, plan: Plan, out: Path) -> float:
    as_it_was = way == "old"
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    with (
        patch.object(composites, "widened", pooled) if as_it_was else nullcontext(),
        patch.object(prove, "answer_stages", one_by_one) if as_it_was else nullcontext(),
        computing("bf16" if way == "bf16" else "fp32"),
    ):
        prove.prove(models, plan, out)
    return clock() - start


@dataclass(frozen=True)
class Differences:
    """Of one way's records from those of `fp32`."""

    answers: int
    asked: int
    points: list[float]  # of each stage's top-1
    shares: np.ndarray  # of each image's relevance on the background

    def row(self) -> str:
        return (
            f"{self.answers} of {self.asked} | {np.mean(self.points):+.2f}, "
            f"{max(self.points, key=abs):+.2f} | {self.shares.mean():+.4f}, "
            f"{np.abs(self.shares).max():.4f}"
        )


def differences(mine: Path, theirs: Path) -> Differences:
    """Of two folders of records."""
    answers, asked, points, shares = 0, 0, list[float](), list[float]()
    for file in sorted(theirs.rglob("*.model.jsonl")):
        other = mine / file.relative_to(theirs)
        if file.name.startswith("maps."):
            both = [read_records(f, MapRecord).rows for f in (other, file)]
            pairs = [(a.background_share, b.background_share) for a, b in zip(*both, strict=True)]
            shares += [a - b for a, b in pairs if a is not None and b is not None]
            continue
        said = [read_records(f, Prediction).rows for f in (other, file)]
        asked += len(said[0])
        answers += sum(a.top5[0] != b.top5[0] for a, b in zip(*said, strict=True))
        right = [100 * float(np.mean([p.right for p in rows])) for rows in said]
        points.append(right[0] - right[1])
    return Differences(answers, asked, points, np.array(shares))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=40, help="even")
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--models", type=int, choices=(1, 2), help="default: 1 and 2")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    every = folder_samples(args.images, args.masks)
    models = {which: load(args.model) for which in ("model", "against")}
    print(f"{measure.machine()}\n{args.count} images, size {args.size or 'as they are'}\n")
    first = args.ways[0]
    standard = "fp32" if "fp32" in args.ways else first
    print(f"| | shifts x models | way | seconds | {first} / this | answers that differ | points, "
          "mean and at most | share, mean and at most |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        step = max(2, 2 * len(every) // args.count)  # two of a class, for the swaps within it
        picked = [every[at // 2 * step + at % 2] for at in range(args.count)]
        copied(picked, folder, args.size)
        for title in args.only:
            kinds, count = KINDS[title]
            count = args.models or count
            asked = dict(list(models.items())[:count])
            plan = Plan({"own": folder / "images"}, {"own": folder / "masks"}, kinds, quiet=True)
            levels = sum(len(shifts.KINDS[kind].levels) for kind in plan.shifts)
            spent = {w: seconds(w, asked, plan, folder / title / w) for w in args.ways}
            for way in args.ways:
                ratio = spent[first] / spent[way]
                found = differences(folder / title / way, folder / title / standard)
                print(
                    f"| {title} | {levels} x {count} | {way} | {spent[way]:.1f} | {ratio:.2f} | "
                    f"{found.row()} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
