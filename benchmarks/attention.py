"""Fused attention or attention by its map in a plain training step, in float32 and bfloat16.

    python benchmarks/attention.py [--arch vit_small_patch14_dinov2] [--size 168] [--threads 1]

Steps without maps (`finetune`, `swap`, `consistency` with `energy=0`) take the faster one where
that was seen to differ (`objectives.steps.trained_logits`). Variants are interleaved in one run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import measure
import timm
import torch
from torch.nn.functional import cross_entropy

from refocus import attention_maps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="vit_small_patch14_dinov2")
    parser.add_argument("--size", type=int, default=168)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = timm.create_model(args.arch, img_size=args.size, num_classes=10).train()
    images = torch.randn(args.batch, 3, args.size, args.size)
    labels = torch.arange(args.batch) % 10

    def step(formed: bool, half: bool) -> Callable[[], None]:
        def call() -> None:
            maps = attention_maps(model) if formed else nullcontext()
            with torch.autocast("cpu", torch.bfloat16, enabled=half), maps:
                logits = model(images)
            cross_entropy(logits.float(), labels).backward()
            model.zero_grad()

        return call

    print(
        f"{measure.machine()}, threads {args.threads}\n"
        f"{args.arch} at {args.size}, batch {args.batch}\n"
    )
    print(
        "| precision | fused, images/s | time by the map / fused, median (quartiles) |\n"
        "|---|---|---|"
    )
    for half in (False, True):
        spent = measure.interleaved(
            {"fused": step(False, half), "formed": step(True, half)}, args.rounds
        )
        middle, low, high = measure.ratio(spent, "formed", "fused")
        name, speed = "bf16" if half else "fp32", args.batch / median(spent["fused"])
        print(f"| {name} | {speed:.1f} | {middle:.2f} ({low:.2f}-{high:.2f}) |")


if __name__ == "__main__":
    main()
