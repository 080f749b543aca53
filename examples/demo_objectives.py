"""The objectives side by side on one demo folder: best epoch, last epoch, and the last with 50/50.

    python examples/demo_objectives.py --demo refocus-demo --out OUT [--rows
    OBJECTIVE:LR[:TERM=WEIGHT,...][:second-order][:all] ...]

The demo folder gives the biased model, the 15 images and the test sets. With `all`, a row trains on
10 images of each of all digits, for 8 epochs (104 steps of batch 8) in place of 50 (100 steps). Run
again to continue after an interruption.
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
from refocus.tuning.checks import interpolate
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
_FLAGS = ("second-order", "all")
_EPOCHS = 8
COLUMNS = ("in_domain", "shuffled", "trained", "untrained", "background_share")


def settings(row: str) -> dict[str, Any]:
    name, lr, *rest = row.split(":")
    terms = [part for part in rest if part not in _FLAGS]
    pairs = [pair.split("=") for part in terms for pair in part.split(",")]
    whole = {"classes": 10, "shots": 10, "epochs": _EPOCHS, "lr_decay": 0.85 ** (25 / _EPOCHS)}
    return {
        **(whole | {"lr_decay_every": 1} if "all" in rest else {}),
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
        line: dict[str, Any] = {"row": row, "best_epoch": results.best_epoch}
        start = load(args.demo / "biased" / "model").state_dict()
        last = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
        for which, weights in [
            ("best", load_file(run / "checkpoints" / "best.safetensors")),
            ("last", last),
            ("50/50", interpolate(start, last, 0.5)),
        ]:
            model.load_state_dict(weights)
            line[which] = to_json(story.measure(model, args.demo / "data"))
        with file.open("a", encoding="utf-8") as sink:
            write_line(sink, line)
    text = f"seed {seed}\n\n| | epoch | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}\n"
    for line in read_lines(file):
        for which in ("best", "last", "50/50"):
            cells = [f"{line[which][c]:.{2 if c == 'background_share' else 1}f}" for c in COLUMNS]
            shown = f"best ({line['best_epoch']})" if which == "best" else which
            text += f"| {line['row']} | {shown} | {' | '.join(cells)} |\n"
    write_text(args.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
