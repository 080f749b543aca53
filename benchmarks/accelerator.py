"""Time and memory of a step, an explanation and a forward pass on an accelerator.

    python benchmarks/accelerator.py [--device cuda] [--models vit_small_patch16_224 ...] \
        [--sizes 224 518] [--batch 16] [--rounds 20] [--profile FOLDER]

In one run and interleaved, for each model, size and number format: a plain fine-tuning step; the
steps of `relevance` and `refocus`; the published step in our own words (benchmarks/step.py); a
forward pass and `refocus.explain` of the same images; plain step and forward pass also under
`torch.compile`. Ratios are of the plain step, or of the forward pass. Peak memory is the
allocator's on CUDA, that of all tensors elsewhere. `--profile` writes a table of the costliest
operators of each.
`benchmarks/gpu.sh` runs this and the other benchmarks with what the documentation shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measure
import timm
import torch
from step import published_loss
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import refocus
from refocus.vit.classes import class_count

Calls = dict[str, Callable[[], Any]]
STEPS = ("plain", "plain, compiled", "relevance", "refocus", "published")
READS = ("forward", "forward, compiled", "explain")


def calls(name: str, size: int, batch: int, device: str, *, bf16: bool) -> Calls:
    """What is measured, each waiting until the device is done."""
    torch.manual_seed(0)
    found: Calls = {}
    images = torch.randn(batch, 3, size, size, device=device)
    masks = torch.zeros(batch, 1, size, size, device=device)
    masks[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    for what in (*STEPS, *READS):
        model = timm.create_model(name, img_size=size, num_classes=1000).to(device)
        labels = torch.arange(batch, device=device) % class_count(model)
        run = torch.compile(model) if what.endswith("compiled") else model
        work = partial(_step, what, run, (images, masks, labels)) if what in STEPS else None
        if work is not None:
            model.train()
            work = partial(work, torch.optim.AdamW(model.parameters(), 1e-6))
        else:
            model.eval()
            work = partial(_read, what, run, images)
        found[what] = partial(_awaited, work, device, bf16)
    return found


def _step(
    what: str, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], optimizer: Any
) -> None:
    if what.startswith("plain"):
        loss = F.cross_entropy(model(batch[0]), batch[2])
    elif what == "published":
        loss = published_loss(model, model, *batch)
    else:
        loss = refocus.objective(what)(model, *batch)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _read(what: str, model: nn.Module, images: Tensor) -> None:
    if what == "explain":
        refocus.explain(model, images)
        return
    with torch.inference_mode():
        model(images)


def _awaited(work: Callable[[], Any], device: str, bf16: bool) -> None:
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        work()
    if device == "cuda":
        torch.cuda.synchronize()


def peak(call: Callable[[], Any], device: str) -> float:
    """MiB above what was held before the call."""
    if device != "cuda":
        return measure.tensor_peak(call)
    call()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def profiled(call: Callable[[], Any], device: str) -> str:
    """The 25 operators that cost most."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as prof:
        call()
    return str(prof.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=25))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    models = ["vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch14_dinov2"]
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 518])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--profile", type=Path)
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if args.device == "cuda" else measure.machine()
    print(f"{device}, torch {torch.__version__}; batch {args.batch}, {args.rounds} rounds\n")
    print("| model | px | format | | ms an image | ratio (quartiles) | peak, MiB |")
    print("|---|---|---|---|---|---|---|")
    for name in args.models:
        for size in args.sizes:
            for bf16 in (False, True):
                _rows(name, size, args, bf16=bf16)


def _rows(name: str, size: int, args: argparse.Namespace, *, bf16: bool) -> None:
    found = calls(name, size, args.batch, args.device, bf16=bf16)
    spent = measure.interleaved(found, args.rounds)
    for what, call in found.items():
        base = "plain" if what in STEPS else "forward"
        ratio = "{:.2f} ({:.2f} to {:.2f})".format(*measure.ratio(spent, what, base))
        each = 1000 * sorted(spent[what])[args.rounds // 2] / args.batch
        held = peak(call, args.device)
        kind = "bf16" if bf16 else "fp32"
        row = (name, size, kind, what, f"{each:.2f}", ratio, f"{held:.0f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if args.profile:
            args.profile.mkdir(parents=True, exist_ok=True)
            file = args.profile / f"{name}-{size}-{kind}-{what.replace(', ', '-')}.txt"
            file.write_text(profiled(call, args.device), encoding="utf-8")


if __name__ == "__main__":
    main()
