"""What was tried to make a tuning step faster on a CPU, each beside the step as it is.

    python benchmarks/tried.py [--model vit_small_patch16_224] [--rounds 9] [--batch 8]

Prints median ratios to the step as it is: below 1 is a gain. Only what gains is in the library
    (docs/performance.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import measure
import torch

from refocus import load, objective
from refocus.vit.classes import class_count
from refocus.vit.loading import preprocessing


def variant(
    ref: str,
    batch: int,
    *,
    compiled: bool = False,
    last: bool = False,
    fused: bool = False,
    **switches: Any,
) -> Callable[[], Any]:
    torch.manual_seed(0)
    model = load(ref, pretrained=False).train()
    images = torch.randn(batch, *preprocessing(model)["input_size"])
    masks, labels = (
        (torch.rand(batch, 1, *images.shape[2:]) > 0.5).float(),
        torch.randint(0, class_count(model), (batch,)),
    )
    if last:
        model, images = (
            model.to(memory_format=torch.channels_last),
            images.to(memory_format=torch.channels_last),
        )
    if compiled:
        for block in model.blocks:  # whole models break at the recorder
            block.mlp.compile()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6, fused=fused or None)
    step = objective("relevance", **switches)

    def call() -> None:
        loss = step(model, images, masks, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    tried: dict[str, dict[str, Any]] = {
        "as it is": {},
        "fused AdamW": {"fused": True},
        "channels last": {"last": True},
        "torch.compile of the MLPs": {"compiled": True},
        "recomputed maps": {"recompute": True},
    }
    calls = {name: variant(args.model, args.batch, **options) for name, options in tried.items()}
    spent = measure.interleaved(calls, args.rounds)
    print(
        f"{measure.machine()}\n{args.model}, batch {args.batch}, {args.rounds} rounds; median of "
        "ratios (quartiles)\n"
    )
    print("| | of the step as it is |\n|---|---|")
    for name in tried:
        print(
            f"| {name} | "
            + "{:.2f} ({:.2f} to {:.2f}) |".format(*measure.ratio(spent, name, "as it is"))
        )


if __name__ == "__main__":
    main()
