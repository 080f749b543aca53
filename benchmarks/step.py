"""What a tuning step costs, in plain fine-tuning steps of the same model in the same minutes.

    python benchmarks/step.py [--models vit_tiny_patch16_224 ...] [--rounds 15] [--batch 8]

Variants: a plain cross-entropy step; ours (`relevance`, the published objective, as `refocus tune`
    runs it); ours in bfloat16; a literal port of the published step in our own words: two forward
    passes of the tuned model, one of the frozen one, one partial backward pass a block, products of
    N x N matrices, two full backward passes. AdamW in all. A folder as model takes its own size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measure
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refocus import load, objective
from refocus.objectives import losses
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import minmax, upsample
from refocus.vit.classes import class_count
from refocus.vit.loading import preprocessing

GOALS = {
    "ours / plain": 1.38,
    "peak memory, ours / plain": 1.5,
    "published / ours": 3.4,
    "ours bf16 / plain": 0.85,
}
VARIANTS = ("plain", "ours", "ours bf16", "published")


def published_loss(
    model: nn.Module, frozen: nn.Module, images: Tensor, masks: Tensor, labels: Tensor
) -> Tensor:
    """The published step up to its last backward pass."""
    logits = model(images)  # for the confidence
    with torch.no_grad():
        frozen(images)  # for the log
    with attention_maps(model) as maps:
        again = model(images)  # for the map
    score = again.gather(1, labels[:, None]).sum()
    model.zero_grad()
    score.backward(retain_graph=True)  # the weights' gradients are thrown away
    tokens = maps[0].shape[-1]
    rollout = torch.eye(tokens, device=images.device).expand(len(images), tokens, tokens)
    for attention in maps:
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        rollout = rollout + torch.bmm((gradient * attention).clamp(min=0).mean(1), rollout)
    side = int((tokens - 1) ** 0.5)
    relevance = minmax(upsample(rollout[:, 0, 1:].reshape(-1, side, side), images.shape[-2:]))
    mask = masks[:, 0]
    map_loss = 2 * losses.background(relevance, mask) + 0.3 * losses.foreground(relevance, mask)
    return 0.8 * map_loss + 0.2 * losses.confidence(logits)


def steps(ref: str, batch: int, only: str | None = None) -> dict[str, Callable[[], Any]]:
    """One step of each variant, each with a model and an optimizer of its own."""
    found: dict[str, Callable[[], Any]] = {}
    for name in VARIANTS if only is None else (only,):
        torch.manual_seed(0)
        model = load(ref, pretrained=Path(ref).is_dir()).train()
        size = preprocessing(model)["input_size"]
        images, masks = torch.randn(batch, *size), (torch.rand(batch, 1, *size[1:]) > 0.5).float()
        labels = torch.randint(0, class_count(model), (batch,))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-6)
        frozen = load(ref, pretrained=False) if name == "published" else model

        found[name] = partial(step, name, model, frozen, optimizer, (images, masks, labels))
    return found


def step(
    name: str,
    model: nn.Module,
    frozen: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    """One step of the variant `name`; `batch` is images, masks and labels."""
    with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("bf16")):
        if name == "plain":
            loss = F.cross_entropy(model(batch[0]), batch[2])
        elif name == "published":
            loss = published_loss(model, frozen, *batch)
        else:
            loss = objective("relevance")(model, *batch)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"],
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--peak", help=argparse.SUPPRESS
    )  # a fresh process that measures one variant's memory
    args = parser.parse_args()
    if args.peak:
        print(measure.peak_of(steps(args.models[0], args.batch, args.peak)[args.peak]))
        return
    print(
        f"{measure.machine()}\nbatch {args.batch}, {args.rounds} rounds; median of ratios "
        "(quartiles)\n"
    )
    print(
        "| model | ours / plain | published / plain | published / ours | ours bf16 / plain | "
        "memory, torch | memory, process |"
    )
    print("|---|---|---|---|---|---|---|")
    for ref in args.models:
        calls = steps(ref, args.batch)
        spent = measure.interleaved(calls, args.rounds)
        pairs = (
            ("ours", "plain"),
            ("published", "plain"),
            ("published", "ours"),
            ("ours bf16", "plain"),
        )
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*measure.ratio(spent, *pair)) for pair in pairs]
        held = {name: measure.tensor_peak(calls[name]) for name in calls}
        del calls
        grown = {
            name: measure.process_peak(
                __file__, ["--models", ref, "--batch", str(args.batch), "--peak", name]
            )
            for name in held
        }
        for peaks in (held, grown):
            cells.append(
                f"{peaks['ours'] / peaks['plain']:.2f} ({peaks['plain']:.0f} -> "
                f"{peaks['ours']:.0f} MiB)"
            )
        print(f"| {Path(ref).name} | " + " | ".join(cells) + " |", flush=True)
    print("\ngoals: " + ", ".join(f"{name} {value}" for name, value in GOALS.items()))


if __name__ == "__main__":
    main()
