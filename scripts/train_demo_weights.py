"""Train the small ViT that the demo starts from (`make demo-weights`, 12 minutes on 2 cores).

It sees bright digits on all textures alike, fresh composites each step, so it starts free of the
shortcut that the demo then plants. Writes a timm hub folder with float16 weights (about 1.4 MB).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import timm
import torch
from rich.progress import track
from torch.nn import functional as F

from refocus.demo import digits
from refocus.vit.loading import save

ARGS = {
    "img_size": digits.SIZE,
    "patch_size": 5,
    "embed_dim": 96,
    "depth": 6,
    "num_heads": 3,
    "num_classes": 10,
}
CONFIG = {
    "tag": "digits",
    "license": "mit",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "label_names": [str(c) for c in range(10)],
    "input_size": (3, digits.SIZE, digits.SIZE),
}


def batch(
    rng: np.random.Generator, n: int, *, split: str, fade: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits on textures drawn without regard to the label."""
    labels = rng.integers(0, 10, size=n)
    pool, pool_labels = digits.digits(split)
    by_class = [np.flatnonzero(pool_labels == c) for c in range(10)]
    images = [
        digits.composite(
            pool[rng.choice(by_class[c])],
            int(rng.integers(10)),
            rng,
            fade=float(rng.uniform(0, fade)),
        )[0]
        for c in labels
    ]
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) - 0.5) / 0.5, torch.from_numpy(
        labels
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--fade", type=float, default=0.5)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "src/refocus/assets/digits"
    )
    args = parser.parse_args()

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=CONFIG, **ARGS)
    for block in model.blocks:
        # at 65 tokens plain attention in bfloat16 is the faster one on a CPU (0.10 s a step, not
        # 0.31)
        block.attn.fused_attn = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    warmup = args.steps // 20

    def rate(step: int) -> float:  # linear warm-up, then cosine
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / args.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for step in track(range(args.steps), description="training"):
        images, labels = batch(rng, args.batch, split="train", fade=args.fade)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            model.eval()
            with torch.inference_mode():
                images, labels = batch(np.random.default_rng(1), 1000, split="test", fade=0.0)
                accuracy = (model(images).argmax(1) == labels).float().mean().item()
            model.train()
            print(
                f"step {step + 1}: loss {loss.item():.3f}, top-1 on random textures "
                f"{100 * accuracy:.1f} %",
                flush=True,
            )
    save(model.eval().half(), args.out)


if __name__ == "__main__":
    main()
