"""The demo on several seeds: means for the best epoch (as the demo shows) and for the last.

    python examples/demo_seeds.py --out OUT [--seeds 0 1 2 3 4]

Settings were chosen on seed 0. Each seed is a folder of `refocus demo`; run again to continue after
an interruption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch

from refocus import load, outputs
from refocus.demo import story
from refocus.demo.settings import DemoSettings
from refocus.files import read_json, write_text
from refocus.records import to_json

COLUMNS = ("in_domain", "shuffled", "trained", "untrained", "background_share")


def last_epoch(folder: Path, name: str) -> dict[str, float]:
    """A row of the demo's table for the weights after the last epoch.

    Independent of the validation loss of that epoch.
    """
    model = load(folder / name / "model")
    checkpoint = torch.load(folder / name / "checkpoints" / "last.pt", weights_only=True)
    model.load_state_dict(checkpoint["model"])
    row: dict[str, float] = to_json(story.measure(model, folder / "data"))
    return row


def cell(values: list[float], digits: int) -> str:
    return (
        f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"
        if len(values) > 1
        else f"{values[0]:.{digits}f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    found: dict[int, dict[str, dict[str, float]]] = {}
    for seed in args.seeds:
        folder = args.out / f"seed{seed}"
        if not (folder / outputs.MANIFEST).exists():
            story.run(folder, DemoSettings(seed=seed))
        rows = read_json(folder / "results.json")
        rows |= {f"{name}, last epoch": last_epoch(folder, name) for name in story.ROWS}
        found[seed] = rows
    text = ""
    for title, seeds in [
        (f"seed {args.seeds[0]} (settings chosen on it)", args.seeds[:1]),
        (f"seeds {args.seeds[1:]}", args.seeds[1:]),
    ]:
        text += f"\n{title}\n\n| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}\n"
        for name in found[args.seeds[0]] if seeds else []:
            cells = [
                cell([found[s][name][c] for s in seeds], 2 if c == "background_share" else 1)
                for c in COLUMNS
            ]
            text += f"| {name} | {' | '.join(cells)} |\n"
    write_text(args.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
