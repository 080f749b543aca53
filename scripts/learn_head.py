"""Make the head that the package carries for the offline backbone, from photographs without any mask.

    python scripts/learn_head.py --images CALTECH/train [--count 600]

The one in the package: 600 images of Caltech-101 (6 of each of 100 classes; CC BY 4.0), 392 px.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import refocus
from refocus import backbones, masks
from refocus.images import image_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--backbone", default=backbones.OFFLINE)
    parser.add_argument("--size", type=int, default=392)
    parser.add_argument("--count", type=int, default=600)
    args = parser.parse_args()
    head = masks.learn(backbones.load_backbone(args.backbone), image_files(args.images), size=args.size, count=args.count)
    target = Path(refocus.__file__).parent / "assets" / "heads" / f"{args.backbone}.npy"
    np.save(target, head.weights)
    print(f"{target}: {len(head.weights)} weights")


if __name__ == "__main__":
    main()
