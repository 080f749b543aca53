"""How time and memory of a tuning step grow with the tokens: plain, ours, and recomputed.

    python benchmarks/scaling.py [--model vit_tiny_patch16_224] [--sizes 224 320 448 640] [--batch
    2]

Prints a table and the exponents of a power law through the sizes (least squares on logarithms).
Plain steps once with torch's fused attention, which keeps no map, and once with eager attention,
which keeps all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import measure
import numpy as np
import timm
import torch
from torch.nn import functional as F

from refocus import objective
from refocus.relevance.attention import attention_maps

VARIANTS = ("plain, fused", "plain, eager", "ours", "ours, recompute")


def steps(name: str, size: int, batch: int) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size).train()
    images, masks = (
        torch.randn(batch, 3, size, size),
        (torch.rand(batch, 1, size, size) > 0.5).float(),
    )
    labels = torch.zeros(batch, dtype=torch.long)
    objectives = {
        "ours": objective("relevance"),
        "ours, recompute": objective("relevance", recompute=True),
    }

    def step(variant: str) -> None:
        if variant in objectives:
            loss = objectives[variant](model, images, masks, labels)["loss"]
        else:
            with attention_maps(model) if variant == "plain, eager" else nullcontext():
                loss = F.cross_entropy(model(images), labels)
        model.zero_grad()
        loss.backward()

    return {variant: lambda v=variant: step(v) for variant in VARIANTS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 320, 448, 640])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(
        f"{measure.machine()}\n{args.model}, batch {args.batch}, {args.rounds} rounds; median "
        "seconds, MiB of tensors\n"
    )
    print("| tokens | " + " | ".join(VARIANTS) + " |\n|" + "---|" * (len(VARIANTS) + 1))
    seconds: dict[str, list[float]] = {v: [] for v in VARIANTS}
    held: dict[str, list[float]] = {v: [] for v in VARIANTS}
    tokens = [(size // 16) ** 2 for size in args.sizes]
    for count, size in zip(tokens, args.sizes, strict=True):
        calls = steps(args.model, size, args.batch)
        spent = measure.interleaved(calls, args.rounds)
        for variant in VARIANTS:
            seconds[variant].append(float(np.median(spent[variant])))
            held[variant].append(measure.tensor_peak(calls[variant]))
        print(
            f"| {count} | "
            + " | ".join(f"{seconds[v][-1]:.2f} s, {held[v][-1]:.0f} MiB" for v in VARIANTS)
            + " |",
            flush=True,
        )
    for what, values in (("time", seconds), ("memory", held)):
        slopes = [f"{np.polyfit(np.log(tokens), np.log(values[v]), 1)[0]:.2f}" for v in VARIANTS]
        print(f"| exponent of {what} | " + " | ".join(slopes) + " |")


if __name__ == "__main__":
    main()
