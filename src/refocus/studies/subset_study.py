"""Appendix A: the subsets of pixels that suffice for a prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from refocus.figures import html
from refocus.figures.pictures import to_picture
from refocus.probes.tools.subsets import CONFIDENCE, sufficient_subsets
from refocus.relevance.attention import logits_of
from refocus.reports import gallery
from refocus.studies.datasets import Ground
from refocus.vit.classes import class_folder_names
from refocus.vit.families import view
from refocus.vit.loading import load, preprocessing


def subset_study(
    ground: Ground,
    model: str,
    *,
    images: int = 4,
    labels: int = 5,
    seed: int = 0,
    rounds: int = 100,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sufficient subsets of random test images: numbers, and pictures.

    For the predicted class and for random others.
    """
    network = load(ground.models[model])
    view(network)
    suite = "imagenet" if "imagenet" in ground.suites else next(iter(ground.suites))
    tests = next(iter(ground.tests(suite, network).values()))
    names = class_folder_names(network)
    rng = np.random.default_rng(seed)
    picked = [
        tests.samples[i]
        for i in rng.choice(len(tests.samples), min(images, len(tests.samples)), replace=False)
    ]
    others = rng.choice(len(names), min(labels, len(names)), replace=False).tolist()
    config = preprocessing(network)
    rows, groups = [], []
    for sample in picked:
        pixels = tests.transform(tests.read(sample))
        with torch.inference_mode():
            predicted = int(logits_of(network, pixels[None]).argmax())
        targets = torch.tensor([predicted, *others])
        found = sufficient_subsets(
            network, pixels[None].repeat(len(targets), 1, 1, 1), targets, rounds=rounds
        )
        picture = to_picture(pixels, config["mean"], config["std"])
        tiles = [gallery.Tile(html.tile_uri(picture), "image", names[sample.label])]
        for position, target in enumerate(targets.tolist()):
            ok, share = bool(found.found[position]), float(found.share[position])
            rows.append(
                {
                    "image": sample.image.name,
                    "target": names[target],
                    "predicted": target == predicted,
                    "found": ok,
                    "share": share if ok else None,
                    "confidence": float(found.confidence[position]) if ok else None,
                }
            )
            kept = found.pixels[position].numpy()[..., None]
            text = (
                f"{float(found.confidence[position]):.1%} from {share:.1%} of the pixels"
                if ok
                else "none found"
            )
            tiles.append(
                gallery.Tile(
                    html.tile_uri(np.where(kept, picture, 255).astype(np.uint8)),
                    names[target],
                    text,
                )
            )
        groups.append(
            {
                "title": sample.image.name,
                "total": 1,
                "rule": "drawn at random",
                "cards": [gallery.Card("", names[sample.label], tiles)],
            }
        )
    foreign = [r for r in rows if not r["predicted"]]
    reached = [r["share"] for r in foreign if r["found"]]
    numbers = {
        "model": model,
        "pairs": len(foreign),
        "reached": 100 * len(reached) / len(foreign) if foreign else None,
        "median_share": float(np.median(reached)) if reached else None,
        "confidence": CONFIDENCE,
        "rows": rows,
    }
    return numbers, groups
