"""How fast this machine is with this model: a few images, timed once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.errors import InputError
from refocus.masks.backbones import Reader, keys_of, load_backbone
from refocus.masks.discovery import cut, object_mask
from refocus.masks.settings import MaskSettings
from refocus.objectives.by_name import step_of
from refocus.objectives.steps import StepSettings
from refocus.relevance.answers import logits_of
from refocus.relevance.gae import explain
from refocus.vit.precision import computing

_FEW = 4  # images that are timed


@dataclass(frozen=True)
class Pace:
    """Seconds for one image: to read it, a forward pass, a map, a step, a mask.

    forward_of_step: of a step, what a validation needs. mask: 0 where none is to be found.
    """

    read: float
    forward: float
    explained: float
    step: float
    forward_of_step: float
    mask: float = 0.0


def measure(
    model: nn.Module,
    files: list[Path],
    objective: str,
    precision: str,
    *,
    backbone: str | None,
    device: str,
) -> Pace:
    """Time everything on the first images that can be read.

    Args:
        model: on the device where it will work.
        files: images, some of them.
        objective: what will be trained for.
        precision: the number format of the model, "fp32" or "bf16".
        backbone: finds masks; None where they are given.
        device: for the backbone.

    Raises:
        InputError: none of the images can be read, or the backbone cannot be had.
    """
    images, read = _read(files)
    transform, place = eval_image(model), next(model.parameters()).device
    started = time.perf_counter()
    batch = torch.stack([transform(image) for image in images]).to(place)
    read += (time.perf_counter() - started) / len(images)
    with computing(precision):
        with torch.inference_mode():
            logits_of(model, batch)  # the first pass prepares what the others find
            _, forward = _timed(lambda: logits_of(model, batch))
        _, explained = _timed(lambda: explain(model, batch[:1]))
        forward_of_step, step = _step(model, batch, objective)
    mask = 0.0 if backbone is None else _mask(backbone, images[0], device)
    return Pace(
        read, forward / len(batch), explained, step / len(batch), forward_of_step / len(batch), mask
    )


def _read(files: list[Path]) -> tuple[list[Image.Image], float]:
    images, started = [], time.perf_counter()
    for file in files:
        try:
            images.append(read_image(file))
        except InputError:
            continue
        if len(images) == _FEW:
            break
    if not images:
        raise InputError(f"‹images›: none of the first {len(files)} images can be read")
    return images, (time.perf_counter() - started) / len(images)


def _step(model: nn.Module, batch: Tensor, objective: str) -> tuple[float, float]:
    """Seconds of a step's forward pass, and of the whole step; nothing is changed."""
    masks = torch.zeros_like(batch[:, :1])
    height, width = masks.shape[2:]
    masks[..., height // 4 : -height // 4, width // 4 : -width // 4] = 1
    labels = torch.arange(len(batch), device=batch.device) % 2
    before = [weight.requires_grad for weight in model.parameters()]
    step = step_of(objective, StepSettings(seen=(0, 1), original=model), {})
    try:
        model.requires_grad_(True)
        terms, forward = _timed(lambda: step(model, batch, masks, labels))
        _, backward = _timed(terms["loss"].backward)
    finally:
        model.zero_grad(set_to_none=True)
        for weight, wanted in zip(model.parameters(), before, strict=True):
            weight.requires_grad_(wanted)
    return forward, forward + backward


def _mask(backbone: str, image: Image.Image, device: str) -> float:
    network = load_backbone(backbone).to(device)
    pixels = Reader(network, MaskSettings.size)(image)
    _, seconds = _timed(lambda: object_mask(cut(keys_of(network, pixels)), pixels))
    return seconds


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, time.perf_counter() - started
