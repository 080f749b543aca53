"""The objectives side by side on one demo folder, at the best epoch and after the last.

    python examples/demo_objectives.py --demo refocus-demo --out OUT [--rows
    OBJECTIVE:LR[:TERM=WEIGHT,...][:second-order] ...]

The demo folder gives the biased model, the 15 images and the test sets. Run again to continue after
an interruption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from refocus import load, outputs
from refocus.demo import story
from refocus.files import read_json, write_text
from refocus.records import read_lines, to_json, write_line
from refocus.tuning.tune import tune

ROWS = (
    "finetune:1e-4",
    "relevance:1e-4",
    "relevance:3e-4",
    "relevance:1e-4:second-order",
    "energy:1e-4",
    "energy:1e-4:second-order",
    "swap:3e-4",
    "refocus:3e-4:energy=0",
    "refocus:3e-4",
    "refocus:3e-4:second-order",
    "refocus:3e-4:energy=3",
    "refocus:1e-4",
)
COLUMNS = ("in_domain", "shuffled", "trained", "untrained", "background_share")


def settings(row: str) -> dict[str, Any]:
    name, lr, *rest = row.split(":")
    pairs = [pair.split("=") for part in rest if part != "second-order" for pair in part.split(",")]
    return {
        "objective": name,
        "lr": float(lr),
        "second_order": "second-order" in rest,
        "weights": {term: float(weight) for term, weight in pairs},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=ROWS)
    args = parser.parse_args()
    seed = read_json(args.demo / outputs.MANIFEST)["seed"]
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "rows.jsonl"
    done = {line["row"] for line in read_lines(file)}
    for row in args.rows:
        if row in done:
            continue
        run = args.out / row.replace(":", "-").replace("=", "")
        results = tune(story.recipe(args.demo, seed, **settings(row)), run)
        model = load(run / "model")
        line: dict[str, Any] = {"row": row, "best_epoch": results["best_epoch"]}
        for which, weights in [
            ("best", load_file(run / "checkpoints" / "best.safetensors")),
            ("last", torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]),
        ]:
            model.load_state_dict(weights)
            line[which] = to_json(story.measure(model, args.demo / "data"))
        with file.open("a", encoding="utf-8") as sink:
            write_line(sink, line)
    text = f"seed {seed}\n\n| | epoch | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}\n"
    for line in read_lines(file):
        for which in ("best", "last"):
            cells = [f"{line[which][c]:.{2 if c == 'background_share' else 1}f}" for c in COLUMNS]
            text += (
                f"| {line['row']} | {which} ({line['best_epoch'] if which == 'best' else 49}) "
                f"| {' | '.join(cells)} |\n"
            )
    write_text(args.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
