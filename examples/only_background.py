"""How much of an object must be taken out before only the background is left?

    python examples/only_background.py --model MODEL --images IMAGES --masks MASKS

Accuracy on the background alone (only-bg) when what is filled is the mask as it is, the mask with a
margin, its convex hull, and its bounding box. If a little margin changes the accuracy much, the
masks' rims told the outline.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.morphology import convex_hull_image
from torch import Tensor

from refocus import evaluate, load
from refocus.data.images import mask_of, read_image
from refocus.data.sampling import chosen
from refocus.data.swaps import fill_object, widened
from refocus.evaluation.metrics import top1
from refocus.evaluation.suites import TestSet, open_suite
from refocus.masks.trust import masked
from refocus.records import Sample


def hull(mask: Tensor) -> Tensor:
    return torch.from_numpy(convex_hull_image(mask[0].numpy() > 0.5))[None].float()


def box(mask: Tensor) -> Tensor:
    rows, columns = (torch.nonzero(mask[0].amax(d) > 0)[:, 0] for d in (1, 0))
    filled = torch.zeros_like(mask)
    filled[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    return filled


AREAS: dict[str, Callable[[Tensor], Tensor]] = {
    "mask": lambda mask: mask,
    "mask + 1 %": lambda mask: widened(mask, 0.01),
    "mask + 2 %": lambda mask: widened(mask, 0.02),
    "mask + 4 % (refocus)": widened,
    "mask + 8 %": lambda mask: widened(mask, 0.08),
    "convex hull + 2 %": lambda mask: widened(hull(mask), 0.02),
    "bounding box + 2 %": lambda mask: box(widened(mask, 0.02)),
}


@dataclass(frozen=True)
class Filled:
    """Reads an image with an area around its object filled in."""

    area: str

    def __call__(self, sample: Sample) -> Image.Image:
        image = read_image(sample.image)
        assert sample.mask is not None  # `masked` let it through
        mask = AREAS[self.area](mask_of(sample, image))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        return Image.fromarray(
            (255 * fill_object(pixels, mask[None])[0].permute(1, 2, 0)).round().byte().numpy()
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--most", type=int, default=150, help="images, spread over the classes")
    args = parser.parse_args()
    model = load(args.model)
    opened = open_suite("", args.images, model, masks=args.masks)
    samples = masked(opened.samples, args.masks, 0.5)
    kept = chosen(samples, args.most, 0)
    samples = [s for s in samples if s.image in kept]
    for area in AREAS:
        tests = TestSet(opened.root, samples, opened.transform, Filled(area))
        found = top1(evaluate(model, tests).predictions)
        low, high = found.interval or (0, 100)
        print(f"{area:22s} top-1 {found.value:5.1f} %  95 %: {low:.1f} to {high:.1f}", flush=True)


if __name__ == "__main__":
    main()
