"""Do maps and losses in bfloat16 agree with float32? On real images and a real model.

    python benchmarks/precision.py --model MODEL --images IMAGES --masks MASKS [--count 64]

Weights stay float32, the relevance is accumulated in float32; the network runs in bfloat16 by
autocast (`--precision bf16`).
"""

from __future__ import annotations

import measure
import numpy as np
import torch
from torch.utils.data import DataLoader

from refocus import explain, load, objective
from refocus.data.folders import scan
from refocus.data.transforms import MaskedImages, joint_transform


def main() -> None:
    parser = measure.parser_on_masks(__doc__)
    parser.add_argument("--count", type=int, default=64)
    args = parser.parse_args()
    model = load(args.model)
    samples = [s for s in scan(args.images, model, masks=args.masks) if s.mask]
    samples = samples[:: max(1, len(samples) // args.count)][: args.count]
    step = objective("relevance")
    correlations, distances, same = [], [], []
    losses: dict[str, list[float]] = {"background": [], "foreground": [], "loss": []}
    for images, masks, labels in DataLoader(
        MaskedImages(samples, joint_transform(model, train=False)), batch_size=8
    ):
        found = []
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found.append((explain(model, images, labels), step(model, images, masks, labels)))
        (full, terms), (half_map, half_terms) = found
        for a, b in zip(full.relevance, half_map.relevance, strict=True):
            correlations.append(np.corrcoef(a.flatten(), b.float().flatten())[0, 1])
            distances.append(float((a - b).abs().mean()))
        same += (full.logits.argmax(1) == half_map.logits.argmax(1)).tolist()
        for name, values in losses.items():
            values.append(abs(half_terms[name].item() / terms[name].item() - 1))
    print(f"{measure.machine()}\n{len(samples)} images\n")
    print(f"same prediction: {100 * np.mean(same):.1f} %")
    print(f"maps in [0, 1]: correlation {np.median(correlations):.4f} (lowest "
          f"{min(correlations):.4f}), mean distance "
          f"{np.mean(distances):.4f} (largest {max(distances):.4f})")  # fmt: skip
    for name, values in losses.items():
        print(
            f"{name} of a batch of 8: relative difference {np.median(values):.4f} (largest "
            f"{max(values):.4f})"
        )


if __name__ == "__main__":
    main()
