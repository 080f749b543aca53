"""What the margin around the donor's object does where background swaps train.

    python examples/margin.py --out OUT demo PLANTED:MODEL ...

`demo` is the offline demo, a biased model for each draw; PLANTED:MODEL is a set and its model as
examples/planted.py takes them. All else is equal within a draw. One JSON line per draw and margin
goes to OUT/rows.jsonl; run again to continue after an interruption. OUT/table.md has the means and
the paired differences over draws.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import ttest_rel
from torch import nn

from refocus import InputError, Recipe, evaluate, load
from refocus.data.swaps import MARGIN, swap_backgrounds
from refocus.demo import story
from refocus.objectives import steps
from refocus.records import read_lines, write_line
from refocus.tuning.selection import choose_samples
from refocus.tuning.tune import tune
from refocus.vit.loading import save

COLUMNS = ("same", "shuffled", "trained", "untrained")
MARGINS = (0.0, MARGIN)


def measure(model: nn.Module, tests: tuple[Path, Path], trained: set[int], precision: str) -> Any:
    """Top-1 in percent on own and on shuffled backgrounds.

    Of the shuffled ones also for the classes tuned on and for the others.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        same, shuffled = (evaluate(model, folder).predictions for folder in tests)
    found = {
        "same": same,
        "shuffled": shuffled,
        "trained": [p for p in shuffled if p.label in trained],
        "untrained": [p for p in shuffled if p.label not in trained],
    }
    return {name: 100 * mean(p.right for p in some) for name, some in found.items()}


def demo(folder: Path, draw: int) -> tuple[Recipe, tuple[Path, Path]]:
    """The demo's images and biased model for a seed, made once, and how the demo tunes it."""
    data = folder / "data"
    if not (folder / "biased" / "model" / "model.safetensors").exists():
        for position, name in enumerate(story.PER_CLASS):
            story.write_images(data / name, name, np.random.default_rng([draw, position]))
        biased = story.plant_shortcut(draw, progress=False)
        save(biased, folder / "biased" / "model")
    recipe = story.recipe(folder, draw, device="cpu", check_images=1, **story.ROWS["refocus"])
    return recipe, (data / "in_domain" / "images", data / "shuffled" / "images")


def planted(given: str, draw: int, precision: str) -> tuple[Recipe, tuple[Path, Path]]:
    """As examples/planted.py tunes, the do-no-harm rule and its images left out."""
    data, _, model = given.partition(":")
    recipe = Recipe(
        model=model,
        images=f"{data}/tune/images",
        masks=f"{data}/tune/masks",
        objective="refocus",
        lr=1e-5,
        epochs=20,
        classes=5,
        class_seed=draw,
        seed=draw,
        val_images=10,
        check_images=1,
        do_no_harm=False,
        precision=precision,  # type: ignore[arg-type]  # argparse checked it
        device="cpu",
    )
    same, shuffled = (Path(data, name, "images") for name in ("test_same", "test_shuffled"))
    return recipe, (same, shuffled)


def one(name: str, draw: int, margin: float, args: argparse.Namespace) -> dict[str, Any]:
    place = args.out / (Path(name.partition(":")[0]).name) / f"draw{draw}"
    recipe, tests = demo(place, draw) if name == "demo" else planted(name, draw, args.precision)
    vars(steps)["swap_backgrounds"] = partial(swap_backgrounds, margin=margin)
    run = place / f"margin{margin:g}"
    tune(recipe, run, progress=False)
    model = load(recipe.model)
    trained = {s.label for s in choose_samples(recipe, model).train}
    row: dict[str, Any] = {"set": name.partition(":")[0], "draw": draw, "margin": margin}
    precision = recipe.precision
    if margin == MARGINS[0]:
        row["before"] = measure(model, tests, trained, precision)
    best = load_file(run / "checkpoints" / "best.safetensors")
    last = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
    for which, weights in (("tuned", best), ("last", last)):
        model.load_state_dict(weights)
        row[which] = measure(model, tests, trained, precision)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Means and standard deviations over draws, and the paired difference with its t-interval."""
    groups: dict[tuple[str, str], dict[int, dict[float, Any]]] = defaultdict(dict)
    for row in rows:
        for which in ("tuned", "last"):
            group = (Path(row["set"]).name, which)
            groups[group].setdefault(row["draw"], {})[row["margin"]] = row[which]
    text = f"| | | margin | {' | '.join(COLUMNS)} | draws |\n|{'---|' * (len(COLUMNS) + 4)}\n"
    for (name, which), draws in groups.items():
        both = [found for found in draws.values() if len(found) == len(MARGINS)]
        for margin in MARGINS:
            values = [[found[margin][c] for found in both] for c in COLUMNS]
            cells = [f"{mean(v):.1f} ± {stdev(v):.1f}" if len(v) > 1 else "-" for v in values]
            text += f"| {name} | {which} | {margin:g} | {' | '.join(cells)} | {len(both)} |\n"
        cells = []
        for column in COLUMNS if len(both) > 1 else ():
            a, b = ([found[m][column] for found in both] for m in reversed(MARGINS))
            low, high = ttest_rel(a, b).confidence_interval()
            cells.append(f"{mean(a) - mean(b):+.1f} [{low:+.1f}, {high:+.1f}]")
        if cells:
            text += f"| {name} | {which} | difference | {' | '.join(cells)} | {len(both)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="SET", help="demo or PLANTED:MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "rows.jsonl"
    done = {(r["set"], r["draw"], r["margin"]) for r in read_lines(file)}
    for name in args.sets:
        for draw in args.draws:
            for margin in MARGINS:
                if (name.partition(":")[0], draw, margin) in done:
                    continue
                try:
                    row = one(name, draw, margin, args)
                except InputError as error:
                    raise SystemExit(f"error: {error}") from error
                with file.open("a", encoding="utf-8") as sink:
                    write_line(sink, row)
                print(row, flush=True)
    text = table(list(read_lines(file)))
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
