"""Judge finished runs again: what the do-no-harm rule, its first version and other choices keep.

    python examples/judge.py --out OUT --runs RUN... [--tests NAME=FOLDER...] [--finer]

RUN: folders of `refocus tune`, of any version. The images that neither trained a run nor chose its
epoch answer at every share of the way, as they are and with swapped backgrounds; FOLDER: class
folders of test images, {run} stands for the run's folder. One JSON line per run goes to
OUT/judged.jsonl; run again to continue after an interruption. OUT/judged.md has the tables.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from refocus import InputError, evaluate, load
from refocus.data.folders import scan
from refocus.files import read_json
from refocus.masks.trust import trusted
from refocus.records import Sample, read_lines, write_line
from refocus.tuning.checkpoints import best_weights
from refocus.tuning.checks import answers, interpolate, relevance_loss
from refocus.tuning.harm import SHARES, candidates, choose, standing
from refocus.tuning.loop import masked_loader
from refocus.tuning.recipe import Recipe, recipe_of
from refocus.tuning.selection import from_json

_MAPS = 40  # images over which the relevance loss is taken
_DIGITS = 4


def left(run: Path, recipe: Recipe, model: nn.Module) -> list[Sample]:
    """Images with masks that the run neither trained on nor chose its epoch by."""
    chosen = from_json(read_json(run / "selection.json"))
    used = {s.image.resolve() for s in (*chosen.train, *chosen.select)}
    root, masks = recipe.val or recipe.images, recipe.val_masks or recipe.masks
    found = trusted(scan(root, model, masks=masks), masks, recipe.mask_score)
    return [s for s in found if s.mask is not None and s.image.resolve() not in used]


def one(run: Path, shares: tuple[float, ...], args: argparse.Namespace) -> dict[str, Any]:
    """What a run's weights answer at each share, rounded: of pairs of swaps halves."""
    recipe = recipe_of(run)
    model = load(recipe.model)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    end = best_weights(run / "checkpoints" / "best.safetensors", model)
    line = [interpolate(start, end, share) for share in shares]
    samples = left(run, recipe, model)[: args.most]
    batches = list(masked_loader(samples, model, recipe))
    images, masks, labels = (torch.cat([batch[i] for batch in batches]) for i in range(3))
    with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
        plain, swapped = answers(model, line, images, masks, labels)
    few = slice(None, None, max(1, len(images) // _MAPS))
    row: dict[str, Any] = {
        "run": str(run),
        "objective": recipe.objective,
        "shares": shares,
        "tolerance": recipe.tolerance,
        "plain": plain.astype(int).tolist(),
        "swapped": swapped.round(_DIGITS).tolist(),
        "relevance_loss": [],
        "tests": {},
    }
    for weights in line:
        model.load_state_dict(weights)
        row["relevance_loss"].append(
            round(relevance_loss(model, images[few], masks[few], labels[few]), _DIGITS)
        )
        for name, folder in (test.split("=", 1) for test in args.tests):
            with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
                found = evaluate(model, Path(folder.format(run=run))).predictions
            top1 = 100 * float(np.mean([p.right for p in found]))
            row["tests"].setdefault(name, []).append(round(top1, _DIGITS))
    return row


# --- what each rule keeps -------------------------------------------------------------------------


def first(row: dict[str, Any], plain: np.ndarray, swapped: np.ndarray) -> int:
    """The rule up to version 0.1, on the same images: point estimate, sign flips, lowest loss."""
    rng = np.random.default_rng(0)
    stands = []
    for at in range(1, len(plain)):
        change = swapped[at] - swapped[0]
        flips = rng.choice([-1.0, 1.0], size=(9999, len(change))) @ change
        by_chance = (1 + (flips >= change.sum() - 1e-9).sum()) / 10_000
        lost = 100 * (plain[0].mean() - plain[at].mean())
        if lost <= row["tolerance"] + 1e-9 and change.any() and by_chance < 0.05:
            stands.append(at)
    return min(stands, key=lambda at: row["relevance_loss"][at], default=0)


def among(key: Callable[[int, dict[str, Any], np.ndarray], float]) -> Any:
    """Of the shares that stand by today's rule, the one with the highest key."""

    def rule(row: dict[str, Any], plain: np.ndarray, swapped: np.ndarray) -> int:
        stands = np.flatnonzero(standing(plain, swapped, row["tolerance"]))
        return int(max(stands, key=lambda at: key(int(at), row, swapped), default=0))

    return rule


RULES: dict[str, Callable[[dict[str, Any], np.ndarray, np.ndarray], int]] = {
    "first rule": first,
    "today: largest share": among(lambda at, _row, _swapped: at),
    "largest swapped gain": among(lambda at, _row, swapped: float(swapped[at].mean())),
    "lowest relevance loss": among(lambda at, row, _swapped: -row["relevance_loss"][at]),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Share that each rule keeps, with the bounds of the end of the way and the tests at it."""
    tests = list(dict.fromkeys(name for row in rows for name in row["tests"]))
    head = ["run", "n", "lost at most at 0.25, 1", "gained at least at 1", *RULES]
    text = f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    for row in rows:
        plain, swapped = np.array(row["plain"], float), np.array(row["swapped"], float)
        found = candidates(row["shares"], plain, swapped, row["tolerance"])
        quarter = row["shares"].index(0.25)
        assert choose([c.stands for c in found]) == RULES["today: largest share"](
            row, plain, swapped
        )
        bounds = [found[quarter].most_lost, found[-1].most_lost, found[-1].least_gained]
        lost, last, gained = (math.nan if b is None else b for b in bounds)
        cells = [Path(row["run"]).name, str(plain.shape[1]), f"{lost:.1f}, {last:.1f}"]
        cells.append(f"{gained:.1f}")
        for rule in RULES.values():
            at = rule(row, plain, swapped)
            measured = "; ".join(f"{row['tests'][name][at]:.1f}" for name in tests if row["tests"])
            cells.append(f"{row['shares'][at]:g}" + (f" ({measured})" if measured else ""))
        text += f"| {' | '.join(cells)} |\n"
    return text + (f"\nIn brackets: top-1 on {', '.join(tests)}.\n" if tests else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--finer", action="store_true", help="eighths of the way")
    parser.add_argument("--most", type=int, default=400, help="images that judge, at most")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "judged.jsonl"
    done = {row["run"] for row in read_lines(file)}
    shares = tuple(i / 8 for i in range(9)) if args.finer else SHARES
    for run in args.runs:
        if str(run) in done:
            continue
        try:
            row = one(run, shares, args)
        except InputError as error:
            raise SystemExit(f"error: {error}") from error
        with file.open("a", encoding="utf-8") as sink:
            write_line(sink, row)
    text = table(list(read_lines(file)))
    (args.out / "judged.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
