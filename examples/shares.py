"""Accuracy at shares of the line from the original weights to the tuned ones.

    python examples/shares.py --runs RUN... --tests NAME=FOLDER... [--shares 0.5 1]

RUN: folders of `refocus tune` (the weights after the last epoch are taken). FOLDER: class folders
    of test images; {run} in it stands for the run's folder. One row per share: top-1 as a mean over
    runs and its change against the original weights, with the 95 % interval over images
    for one run, paired t over runs for several.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
from scipy.stats import ttest_1samp

from refocus import Recipe, evaluate, load
from refocus.errors import InputError
from refocus.evaluation.metrics import paired_difference
from refocus.files import read_json
from refocus.records import Prediction
from refocus.results import Change
from refocus.tuning.checks import interpolate


def measure(run: Path, folder: Path, shares: list[float], precision: str) -> list[list[Prediction]]:
    """Predictions at share 0 and at each of `shares`."""
    model = load(Recipe.from_dict(read_json(run / "recipe.json")).model)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    end = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
    found = []
    for share in [0.0, *shares]:
        model.load_state_dict(interpolate(start, end, share))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found.append(evaluate(model, folder).predictions)
    return found


def cell(values: list[float], changes: list[Change]) -> str:
    """Accuracy, and its change with an interval where there is one."""
    points = [change.difference for change in changes if change.difference is not None]
    one = changes[0].interval if len(points) == 1 else None
    low, high = one or ttest_1samp(points, 0).confidence_interval()
    return f"{mean(values):.1f}, {mean(points):+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--tests",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help="{run} in FOLDER: the run's folder",
    )
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()
    tests = dict(test.split("=", 1) for test in args.tests)
    for folder in (Path(f.format(run=run)) for f in tests.values() for run in args.runs):
        if not folder.is_dir():  # before minutes of work on the others
            raise SystemExit(f"error: --tests {folder}: no such folder")
    values, changes = defaultdict(list), defaultdict(list)
    try:
        for run in args.runs:
            for name, folder in tests.items():
                before, *after = measure(
                    run, Path(folder.format(run=run)), args.shares, args.precision
                )
                values[name, 0.0].append(accuracy(before))
                for share, found in zip(args.shares, after, strict=True):
                    values[name, share].append(accuracy(found))
                    changes[name, share].append(paired_difference(found, before).top1)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"| share | {' | '.join(tests)} |\n|{'---|' * (len(tests) + 1)}")
    print(f"| 0 | {' | '.join(f'{mean(values[name, 0.0]):.1f}' for name in tests)} |")
    for share in args.shares:
        print(
            f"| {share:g} | "
            f"{' | '.join(cell(values[name, share], changes[name, share]) for name in tests)} |"
        )
    print(f"\n{len(args.runs)} run(s)")


def accuracy(predictions: list[Prediction]) -> float:
    return 100 * mean(p.right for p in predictions)


if __name__ == "__main__":
    main()
