"""What a study would take, before anything is run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refocus.data.listing import EXTENSIONS
from refocus.errors import InputError
from refocus.evaluation.maps import Gtsegs
from refocus.evaluation.plan import SEGMENTS
from refocus.objectives.by_name import objective
from refocus.relevance.answers import logits_of
from refocus.studies.datasets import KINDS
from refocus.studies.order import Order
from refocus.studies.registry import PUBLISHED, Variant
from refocus.studies.subset_study import IMAGES, LABELS, ROUNDS
from refocus.vit.loading import load, preprocessing

_BATCH = 8  # of a step, as published

# images to answer, and GB on disk where a source was found; docs/studies.md has the sources
SIZES: dict[str, tuple[int, float | None]] = {
    "imagenet": (50_000, 6.3),
    "imagenet-v2": (10_000, 1.3),
    "imagenet-a": (7_500, 0.7),
    "imagenet-r": (30_000, 2.2),
    "imagenet-sketch": (50_000, 8.4),
    "objectnet": (18_574, None),
    "si-location": (541_548, 19.6),
    "si-rotation": (39_540, 1.5),
    "si-size": (92_884, 3.5),
    SEGMENTS: (4_276, None),
    "train": (9_190, None),
}


@dataclass(frozen=True)
class Needed:
    """A folder or file that a study reads."""

    what: str
    path: str
    there: bool
    images: int | None
    gb: float | None


@dataclass(frozen=True)
class Work:
    """What one model takes on this machine."""

    model: str
    runs: int
    steps: int  # of training
    images: int  # to answer
    gradients: int  # images that take a gradient beside the steps: validation, maps, subsets
    hours: float


@dataclass(frozen=True)
class Estimated:
    """What a study reads, what its file of data sets does not name, and what it takes."""

    places: tuple[Needed, ...]
    masks_not_named: tuple[str, ...]
    suites_not_named: tuple[str, ...]
    models: tuple[Work, ...]


def dry_run(order: Order) -> Estimated:
    """Each folder, whether it is there, how large it is; and the hours, from one timed step."""
    network = load(order.ground.models[order.models[0]], pretrained=False) if order.models else None
    places = tuple(_needed(order, name, path, network) for name, path in _paths(order).items())
    images = {p.what: p.images or 0 for p in places}
    return Estimated(
        places,
        tuple(kind for kind in KINDS if kind not in order.ground.masks),
        tuple(s for s in order.row.suites if not order.ground.own and s not in order.ground.suites),
        tuple(_work(order, model, images) for model in order.models),
    )


def _paths(order: Order) -> dict[str, Path]:
    """What is read -> where it should lie."""
    needed = {"train": order.ground.train}
    needed |= {f"masks ({kind})": path for kind, path in order.ground.masks.items()}
    if order.ground.val is not None:
        needed["val"] = order.ground.val
    needed |= {name: order.ground.suites[name] for name in order.suites}
    if order.map_images and not order.ground.own:
        needed[SEGMENTS] = order.ground.suites.get(SEGMENTS, Path("(not named)"))
    return needed


def _needed(order: Order, name: str, path: Path, network: nn.Module | None) -> Needed:
    published, size = SIZES.get(name, (None, None))
    images = _images(order, name, path, network) if path.exists() else None
    return Needed(name, str(path), path.exists(), published if images is None else images, size)


def _images(order: Order, name: str, path: Path, network: nn.Module | None) -> int | None:
    """How many images are there, as far as they can be told: those of a suite that are asked."""
    if name == "train":  # of all of ImageNet those that have masks
        return _count(next(iter(order.ground.masks.values())))
    try:
        if network is not None and name == SEGMENTS:
            return len(Gtsegs(path, network).samples())
        if network is not None and name in order.suites:
            return sum(len(t.samples) for t in order.ground.tests(name, network).values())
    except InputError:  # the study will say what is wrong with them
        return None
    return _count(path)


def _count(path: Path) -> int | None:
    if not path.is_dir():
        return None
    return sum(1 for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)


def _work(order: Order, model: str, images: Mapping[str, int]) -> Work:
    """images: what is read -> how many there are of it."""
    step, answer = time_step(order.ground.models[model], order.device)
    jobs = [job for job in order.jobs if job.model == model]
    tuned = [job.variant for job in jobs if job.variant.tunes]
    steps = sum(_steps(order, variant) for variant in tuned)
    answered = sum(images[suite] for suite in order.suites) * len(jobs)
    gradients = sum(_validated(order, variant, images) for variant in tuned)
    gradients += _explained(order, len(jobs), images)
    # a step takes the gradient of a batch, and so does each of these
    hours = ((steps + gradients / _BATCH) * step + answered * answer) / 3600
    return Work(model, len(tuned), steps, answered, gradients, hours)


def _settings(order: Order, variant: Variant) -> dict[str, Any]:
    return {**order.ground.recipe, **order.common, **variant.recipe}


def _shots(order: Order, settings: dict[str, Any]) -> int:
    """Training images of one run."""
    shots: int = settings.get("shots", 3) * settings.get("classes", order.trained)
    return shots


def _steps(order: Order, variant: Variant) -> int:
    """Steps of one run, batch 8."""
    settings = _settings(order, variant)
    shots = _shots(order, settings)
    count: int = -(-shots // settings.get("batch_size", _BATCH)) * settings.get("epochs", 50)
    return count


def _validated(order: Order, variant: Variant, images: Mapping[str, int]) -> int:
    """Images that one run validates on, after each epoch."""
    settings = _settings(order, variant)
    wanted: int = settings.get("val_images", 414)
    left = images["train"] - _shots(order, settings)
    if "val" in images:
        left = images["val"] or wanted
    count: int = min(wanted, max(1, left)) * settings.get("epochs", 50)
    return count


def _explained(order: Order, jobs: int, images: Mapping[str, int]) -> int:
    """Images whose maps are made, and passes that look for subsets."""
    if order.row.layout == "subsets":
        return IMAGES * (LABELS + 1) * ROUNDS
    if not order.map_images:
        return 0
    if order.row.layout == "salience":
        return min(order.maps, images[SEGMENTS])
    return images[SEGMENTS] * jobs  # all of the file


def time_step(ref: str, device: torch.device) -> tuple[float, float]:
    """Seconds of one published step (batch 8) and of one answered image.

    With random weights, so that no hub is needed.
    """
    model = load(ref, pretrained=False, device=device)
    size = preprocessing(model)["input_size"]
    images, masks, labels = (
        torch.randn(_BATCH, *size, device=device),
        torch.rand(_BATCH, 1, *size[1:], device=device),
        torch.zeros(_BATCH, dtype=torch.long, device=device),
    )
    step = objective(PUBLISHED.recipe["objective"])
    times = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        step(model, images, masks, labels)["loss"].backward()
        _finished(device)
        middle = time.perf_counter()
        with torch.inference_mode():
            logits_of(model, images)
        _finished(device)
        times.append((middle - started, (time.perf_counter() - middle) / len(images)))
    return times[-1]


def _finished(device: torch.device) -> None:
    """A GPU works on while Python goes on."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
