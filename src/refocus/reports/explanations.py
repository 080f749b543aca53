"""Overlays and numbers for image files: what `refocus explain` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from refocus import outputs
from refocus.data.images import read_image
from refocus.data.listing import images_below
from refocus.data.transforms import eval_image
from refocus.errors import InputError
from refocus.figures.pictures import figure, overlay, to_picture
from refocus.records import Explanation
from refocus.relevance.gae import explain
from refocus.vit.classes import class_count, class_names, folder_names
from refocus.vit.families import view
from refocus.vit.loading import load, preprocessing


def find(paths: list[Path]) -> list[Path]:
    """Image files as they are, folders as all images below them."""
    found: list[Path] = []
    for path in paths:
        inside = images_below(path, "images") if path.is_dir() else [path]
        if not inside:
            raise InputError(f"IMAGE {path}: a folder without images")
        found += inside
    return found


def write(
    images: list[Path],
    refs: dict[str, str],
    out: Path,
    *,
    target: str | None = None,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """One PNG per image (what the model saw, then an overlay per model) and explanations.json;
    returns its content.

    All models and images are read before the folder is made, so that bad input leaves nothing
    behind.
    """
    models = {which: load(ref, device=device) for which, ref in refs.items()}
    for model in models.values():
        view(model)
    targets = {which: _target(model, target) for which, model in models.items()}
    for path in images:
        read_image(path)
    folder = outputs.new_folder(out)
    rows: list[dict[str, Any]] = []
    for position, path in enumerate(
        track(images, description="explaining", transient=True, console=Console(stderr=True))
    ):
        name = f"{position:04d}-{path.stem}.png"
        tiles: list[np.ndarray] = []
        titles, captions = ["image"], [path.name]
        row: dict[str, Any] = {"image": str(path), "overlay": name}
        for which, model in models.items():
            config = preprocessing(model)
            pixels = eval_image(model)(read_image(path)).to(device)
            answer = explain(model, pixels[None], targets[which])
            row[which] = _facts(model, answer)
            picture = to_picture(pixels, config["mean"], config["std"])
            tiles = tiles or [picture]
            tiles.append(overlay(picture, answer.relevance[0]))
            titles.append(which)
            captions.append(f"{row[which]['prediction']} ({row[which]['confidence']:.0%})")
        figure([tiles], titles, [captions], folder / name)
        rows.append(row)
    outputs.write_json(folder / "explanations.json", {"models": refs, "images": rows})
    outputs.finish(folder, "explain")
    return rows


def _target(model: nn.Module, wanted: str | None) -> int | None:
    """Index of a class given by name, folder name or index."""
    if wanted is None:
        return None
    for names in (class_names(model) or [], folder_names(model) or []):
        if wanted in names:
            return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < class_count(model):
        return int(wanted)
    raise InputError(
        f"‹target› {wanted}: the model has no such class; give a name it knows or an index from 0 "
        f"to {class_count(model) - 1}"
    )


def _facts(model: nn.Module, answer: Explanation) -> dict[str, Any]:
    names = class_names(model) or [str(i) for i in range(class_count(model))]
    shares = answer.logits[0].float().softmax(0)
    top = shares.topk(min(5, len(shares)))
    return {
        "prediction": names[int(top.indices[0])],
        "confidence": float(top.values[0]),
        "top5": [
            {"class": names[i], "confidence": v}
            for i, v in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ],
        "explained": names[int(answer.targets[0])],
        "relevance": answer.patches[0].cpu().tolist(),
    }
