"""A base model for a benchmark: plain fine-tuning of the offline backbone on its training images.

    python evidence/base.py --train TRAIN --val VAL --out OUT --seed 0 --precision bf16

TRAIN and VAL are ImageFolders. The backbone is the DINOv2-small ViT-S/14 of the extra `offline`, at
168 px. Empirical risk minimization as people do it: cross-entropy, AdamW, a cosine schedule with
one epoch of warm-up, random resized crops and flips; every class counts as often as its images. The
last epoch is kept, so no choice is made on VAL: its accuracy is written down after each epoch.
OUT holds model/ (a folder that timm and refocus load) and history.jsonl. A run that was cut off
starts anew: it takes minutes.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import timm
import torch
from rich.progress import track
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from refocus import InputError, evaluate
from refocus.data.folders import class_folders, scan
from refocus.data.images import read_image
from refocus.masks.backbones import OFFLINE, load_backbone
from refocus.records import Sample, write_line
from refocus.vit.loading import preprocessing, save

SIZE = 168  # 145 tokens
WARM_UP = 1  # epochs


class Augmented(torch.utils.data.Dataset[Any]):
    """Images as they train: random crops of half of the area or more, flips."""

    def __init__(self, samples: list[Sample], mean: Any, std: Any) -> None:
        self.samples = samples
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomResizedCrop(
                    SIZE, scale=(0.5, 1), interpolation=InterpolationMode.BICUBIC, antialias=True
                ),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Any:
        sample = self.samples[position]
        return self.transform(read_image(sample.image)), sample.label


def fresh(names: list[str]) -> nn.Module:
    """The backbone at this resolution with a new classifier for these classes."""
    model: Any = timm.create_model(
        "vit_small_patch14_dinov2", num_classes=len(names), img_size=SIZE
    )
    source: Any = load_backbone(OFFLINE)
    state = {k: v for k, v in source.state_dict().items() if k != "pos_embed"}
    state["pos_embed"] = timm.layers.resample_abs_pos_embed(
        source.pos_embed.data, list(model.patch_embed.grid_size)
    )
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) == {"head.weight", "head.bias"}, missing
    assert not unexpected, unexpected
    model.pretrained_cfg = {
        **model.pretrained_cfg,
        "input_size": (3, SIZE, SIZE),
        "crop_pct": 1.0,
        "num_classes": len(names),
        "label_names": names,
    }
    for block in model.blocks:  # fused attention has a slow backward pass in bf16 on a CPU
        block.attn.fused_attn = False
    module: nn.Module = model
    return module


def rate_at(step: int, steps: int, warm: int) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(model: nn.Module, args: argparse.Namespace) -> None:
    config = preprocessing(model)
    data = Augmented(scan(args.train, model), config["mean"], config["std"])
    loader = DataLoader(data, batch_size=args.batch_size, shuffle=True, drop_last=True)
    head = [w for name, w in model.named_parameters() if name.startswith("head.")]
    rest = [w for name, w in model.named_parameters() if not name.startswith("head.")]
    groups = [{"params": rest, "lr": args.lr}, {"params": head, "lr": 10 * args.lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    steps, warm = args.epochs * len(loader), WARM_UP * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_at(s, steps, warm))
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        for images, labels in track(loader, description=f"epoch {epoch}"):
            with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
                loss = cross_entropy(model(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            found = evaluate(model.eval(), args.val).predictions
        right = 100 * sum(p.right for p in found) / len(found)
        line = {"epoch": epoch, "loss": total / len(loader), "val_top1": right, "n": len(found)}
        with (args.out / "history.jsonl").open("a", encoding="utf-8") as file:
            write_line(file, line)
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()
    if (args.out / "model").exists():
        raise SystemExit(f"error: --out {args.out}: holds a model already; name a new folder")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "history.jsonl").unlink(missing_ok=True)
    torch.manual_seed(args.seed)
    try:
        model = fresh(list(class_folders(args.train, "--train")))
        train(model, args)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    save(model.eval(), args.out / "model")


if __name__ == "__main__":
    main()
