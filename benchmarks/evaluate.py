"""Images per second of `refocus.evaluate`, beside the limit and timm's way, interleaved.

    python benchmarks/evaluate.py --images FOLDER --model MODEL [--count 256] [--workers 1]

Limit: a bare loop of the model over batches that are already decoded. timm: its dataset, its loader
    (`create_dataset`, `create_loader`) and its own transform, top-5 of each batch, as its
    validation script does. Batch 64, the same files for all.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch
from timm.data import create_dataset, create_loader
from torch import nn

from refocus import evaluate, load
from refocus.data.folders import image_files
from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.vit.loading import preprocessing


def sample(source: Path, target: Path, count: int) -> None:
    """Every n-th file of an ImageFolder, so that every class has one."""
    files = image_files(source)
    for file in files[:: max(1, len(files) // count)][:count]:
        place = target / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)


def with_timm(model: nn.Module, folder: Path, batch: int, workers: int) -> None:
    config = preprocessing(model)
    dataset = create_dataset("", root=str(folder))
    loader = create_loader(
        dataset,
        input_size=config["input_size"],
        batch_size=batch,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=workers,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        persistent_workers=False,
    )
    with torch.inference_mode():
        for images, _ in loader:
            model(images).topk(5, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = load(args.model)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        sample(args.images, folder, args.count)
        files = image_files(folder)
        see = eval_image(model)
        decoded = torch.stack([see(read_image(f)) for f in files]).split(args.batch)

        def limit() -> None:
            with torch.inference_mode():
                for images in decoded:
                    model(images)

        variants: dict[str, Callable[[], Any]] = {"limit": limit}
        for workers in dict.fromkeys((0, args.workers)):
            variants[f"refocus, {workers} workers"] = lambda w=workers: evaluate(
                model, folder, batch_size=args.batch, workers=w
            )
            variants[f"timm, {workers} workers"] = lambda w=workers: with_timm(
                model, folder, args.batch, w
            )
        spent = measure.interleaved(variants, args.rounds)
    print(
        f"{measure.machine()}\n{len(files)} images, batch {args.batch}, {args.rounds} rounds; "
        "median of ratios (quartiles)\n"
    )
    print("| | images/s | of the limit |\n|---|---|---|")
    for name in variants:
        middle, low, high = measure.ratio(spent, "limit", name)
        rate = len(files) / sorted(spent[name])[len(spent[name]) // 2]
        print(f"| {name} | {rate:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    print("\ngoals: at least 0.9 of the limit, and not slower than timm")


if __name__ == "__main__":
    main()
