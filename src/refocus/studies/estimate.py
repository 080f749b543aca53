"""What a study would take, before anything is run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from refocus.evaluation.plan import SEGMENTS
from refocus.objectives.by_name import objective
from refocus.relevance.answers import logits_of
from refocus.studies.datasets import KINDS
from refocus.studies.order import Order
from refocus.studies.registry import PUBLISHED, Variant
from refocus.vit.loading import load, preprocessing

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
    steps: int
    images: int
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
    places = tuple(_needed(order, name, path) for name, path in _paths(order).items())
    images = sum(p.images or 0 for p in places if p.what in order.suites)
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
    needed |= {name: order.ground.suites[name] for name in order.suites}
    if order.map_images and not order.ground.own:
        needed[SEGMENTS] = order.ground.suites.get(SEGMENTS, Path("(not named)"))
    return needed


def _needed(order: Order, name: str, path: Path) -> Needed:
    images, size = SIZES.get(name, (None, None)) if not order.ground.own else (None, None)
    return Needed(name, str(path), path.exists(), images or _count(path), size)


def _count(path: Path) -> int | None:
    return sum(1 for p in path.rglob("*") if p.is_file()) if path.is_dir() else None


def _work(order: Order, model: str, images: int) -> Work:
    """images: to answer by each of its runs."""
    step, answer = time_step(order.ground.models[model], order.device)
    jobs = [job for job in order.jobs if job.model == model]
    tuned = [job.variant for job in jobs if job.variant.tunes]
    steps = sum(_steps(order, variant) for variant in tuned)
    answered = images * len(jobs)
    hours = (steps * step + answered * answer) / 3600
    return Work(model, len(tuned), steps, answered, hours)


def _steps(order: Order, variant: Variant) -> int:
    """Steps of one run, batch 8."""
    settings = {**order.ground.recipe, **order.common, **variant.recipe}
    shots = settings.get("shots", 3) * settings.get("classes", order.trained)
    count: int = -(-shots // settings.get("batch_size", 8)) * settings.get("epochs", 50)
    return count


def time_step(ref: str, device: torch.device) -> tuple[float, float]:
    """Seconds of one published step (batch 8) and of one answered image.

    With random weights, so that no hub is needed.
    """
    model = load(ref, pretrained=False, device=device)
    size = preprocessing(model)["input_size"]
    images, masks, labels = (
        torch.randn(8, *size, device=device),
        torch.rand(8, 1, *size[1:], device=device),
        torch.zeros(8, dtype=torch.long, device=device),
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
