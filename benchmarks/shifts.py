"""Seconds of an audit's and a report's shifts, one kind after the other and all at once.

    python benchmarks/shifts.py --images FOLDER --masks FOLDER --model MODEL [--count 20]
        [--size 500 375]

The old way is what versions before had: each kind and level walks through all images for itself and
each model, and a mask's margin is a pooling over a square window. Seconds are of the processor, in
one thread and one process, both ways in the same run on the same files. The floor is the forward
passes alone. --size enlarges the images first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import measure
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from refocus import load
from refocus.data import composites, shifts
from refocus.data.folders import folder_samples
from refocus.evaluation.abreast import Stage, answer_stages
from refocus.evaluation.classify import evaluate
from refocus.evaluation.collect import softmax_shares
from refocus.evaluation.suites import open_suite
from refocus.records import Sample
from refocus.reports import audit, before_after

KINDS = {
    "audit, one model": (audit.SHIFTS, 1),
    "report, two models": ((*before_after.SHIFTS, *shifts.unseen(real=False)), 2),
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


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=20, help="even")
    parser.add_argument("--size", type=int, nargs=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    every = folder_samples(args.images, args.masks)
    models = {which: load(args.model) for which in ("model", "against")}
    print(f"{measure.machine()}\n{args.count} images, size {args.size or 'as they are'}\n")
    print("| | images x shifts x models | old | now | floor | old / now | answers that differ |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        step = max(2, 2 * len(every) // args.count)  # two of a class, for the swaps within it
        picked = [every[at // 2 * step + at % 2] for at in range(args.count)]
        copied(picked, folder, args.size)
        tests = open_suite("", folder / "images", models["model"], masks=folder / "masks")
        for title, (kinds, count) in KINDS.items():
            asked = dict(list(models.items())[:count])
            stages = [
                Stage(f"{kind}-{shift.level}", shift, dict.fromkeys(asked, some))
                for kind in kinds
                for shift, some in shifts.shifts(tests.samples, kind, 0)
            ]
            old_answers: dict[Any, Any] = {}
            answers: dict[Any, Any] = {}

            def old(
                stages: list[Stage] = stages,
                asked: dict[str, Any] = asked,
                into: dict[Any, Any] = old_answers,
            ) -> None:
                for stage in stages:
                    for which, model in asked.items():
                        one = replace(tests, samples=stage.samples[which], read=stage.shift)
                        into[stage.name, which] = evaluate(model, one).predictions

            def now(
                stages: list[Stage] = stages,
                asked: dict[str, Any] = asked,
                into: dict[Any, Any] = answers,
            ) -> None:
                records = Path(tempfile.mkdtemp(dir=root))
                into |= answer_stages(asked, dict.fromkeys(asked, tests), stages, records)

            with patch.object(composites, "widened", pooled):
                before = seconds(old)
            after = seconds(now)
            rows = sum(len(s.samples[which]) for s in stages for which in asked)
            pixels = torch.stack([tests.transform(tests.read(s)) for s in tests.samples[:16]])
            once = seconds(partial(softmax_shares, models["model"], pixels))
            floor = once * rows / len(pixels)
            differ = sum(
                a.top5[0] != b.top5[0]
                for (stage, which), found in old_answers.items()
                for a, b in zip(found, answers[stage][which].predictions, strict=True)
            )
            print(
                f"| {title} | {len(tests.samples)} x {len(stages)} x {count} | {before:.1f} s | "
                f"{after:.1f} s | {floor:.1f} s | {before / after:.2f} | {differ} of {rows} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
