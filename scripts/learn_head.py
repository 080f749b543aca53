"""Make the head that the package carries for the offline backbone, without any mask.

    python scripts/learn_head.py --images CALTECH/train [--per-class 3]

The one in the package: the first 3 training images of each of 100 classes of Caltech-101 (CC BY
    4.0), 392 px.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import refocus
from refocus.data.folders import class_folders
from refocus.masks import backbones
from refocus.masks.finders import learn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--backbone", default=backbones.OFFLINE)
    parser.add_argument("--size", type=int, default=392)
    parser.add_argument("--per-class", type=int, default=3)
    args = parser.parse_args()
    files = [
        file
        for folder in class_folders(args.images, "--images").values()
        for file in folder[: args.per_class]
    ]
    head = learn(backbones.load_backbone(args.backbone), files, size=args.size)
    target = Path(refocus.__file__).parent / "assets" / "heads" / f"{args.backbone}.npy"
    np.save(target, head.weights)
    print(f"{target}: {len(head.weights)} weights")


if __name__ == "__main__":
    main()
