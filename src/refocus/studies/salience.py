"""Figure 1: images whose relevance lies on the background, or on few patches of the object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.data.sampling import chosen
from refocus.data.transforms import scale_of
from refocus.evaluation.collect import Question, collect
from refocus.evaluation.intervals import estimate
from refocus.evaluation.maps import Gtsegs, MaskedView
from refocus.evaluation.metrics import PERCENT, background_share, object_seen
from refocus.evaluation.plan import SEGMENTS
from refocus.figures.html import tile_uri
from refocus.figures.pictures import overlay, to_picture
from refocus.processes import workers_for
from refocus.records import Sample, typed
from refocus.relevance.gae import explain
from refocus.reports import gallery
from refocus.studies.jobs import Job, masked_tests
from refocus.studies.order import Order
from refocus.studies.page import Pictures
from refocus.studies.registry import ORIGINAL
from refocus.studies.results import Salience
from refocus.vit.classes import brief_names
from refocus.vit.loading import load

BACKGROUND = 0.9  # share of the relevance that makes a map one of the background
SPARSE = 0.05  # share of the object's patches, where half of its relevance lies on fewer
SURE = 0.9  # confidence that the paper's examples have
SHOWN = 3  # images of each kind, as in the paper


@dataclass(frozen=True)
class Look:
    """Where one model looks on one image, and how sure it is; None without an object or a map."""

    image: str
    background: float | None  # share of the relevance
    half: float | None  # share of the object's patches that hold half of the relevance on it
    confidence: float  # softmax share of the predicted class

    @property
    def elsewhere(self) -> bool:
        """Does more than `BACKGROUND` of the relevance lie on the background?"""
        return self.background is not None and self.background > BACKGROUND

    @property
    def sparse(self) -> bool:
        """Does the object hold most of the relevance, on few of its patches?"""
        on_object = self.background is not None and self.background < 0.5
        return on_object and self.half is not None and self.half < SPARSE


@dataclass(frozen=True)
class Images:
    """Images with masks: how each is read and normalized, below which folder they are named."""

    samples: Sequence[Sample]
    root: Path
    read: Callable[[Sample], tuple[Tensor, Tensor]]
    scale: tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel


def half_share(patches: Tensor, mask: Tensor, covered: Sequence[int] | None = None) -> float | None:
    """The smallest share of the object's patches that holds half of the relevance on the object.

    patches: raw relevance `[h, w]`. mask: `[H, W]` in [0, 1]. None where no patch is on the object,
    or none of these has relevance. covered: (rows, columns) of pixels that the patches cover; None:
    all.
    """
    height, width = patches.shape
    rows, columns = mask.shape if covered is None else covered
    seen = F.pad(mask.float(), (0, columns - mask.shape[1], 0, rows - mask.shape[0]))
    inside = F.adaptive_avg_pool2d(seen[None, None], (height, width))[0, 0] > 0.5
    values = patches[inside].double().sort(descending=True).values
    if not len(values) or not values.sum():
        return None
    reached = values.cumsum(0) >= values.sum() / 2
    return float(int(reached.int().argmax()) + 1) / len(values)


def salience(order: Order, model: str) -> tuple[Salience, tuple[Pictures, ...]]:
    """How many images of one model are of either kind, and those of which it is surest."""
    network = load(order.ground.models[model], device=order.device)
    images = _images(order, network)
    records = Job(model, ORIGINAL).records(order.out, "salience")
    records.parent.mkdir(parents=True, exist_ok=True)
    lines = collect(
        images.samples,
        images.root,
        Question(images.read, partial(_looks, network)),
        records=records,
        batch_size=32,
        workers=workers_for(order.workers, order.device.type),
    )
    looks = typed(lines, Look, records).rows
    groups = tuple(
        _pictures(f"{model}: {title}", [x for x in looks if kind(x)], network, images)
        for title, kind in (
            (f"more than {BACKGROUND:.0%} of the relevance on the background", _elsewhere),
            (f"half of the object's relevance on fewer than {SPARSE:.0%} of it", _sparse),
        )
    )
    return _numbers(model, looks), groups


def _elsewhere(look: Look) -> bool:
    return look.elsewhere


def _sparse(look: Look) -> bool:
    return look.sparse


def _images(order: Order, network: nn.Module) -> Images:
    """The user's own test images with masks, or ImageNet-Segmentation; as many as are asked for."""
    scale = scale_of(network, order.ground.protocol)
    if order.ground.own:
        root, read = order.ground.suites["natural"], MaskedView(network, order.ground.protocol)
        return Images(_some(order, masked_tests(order.ground, network)), root, read, scale)
    file = order.ground.suites[SEGMENTS]
    of_file = Gtsegs(file, network, order.ground.protocol)
    return Images(_some(order, of_file.samples()), file.parent, of_file, scale)


def _some(order: Order, samples: Sequence[Sample]) -> list[Sample]:
    kept = chosen(samples, order.maps, order.seed)
    return [s for s in samples if s.image in kept]


def _looks(
    network: nn.Module, batch: list[Sample], items: list[tuple[Tensor, Tensor]]
) -> list[dict[str, Any]]:
    device = next(network.parameters()).device
    masks = torch.stack([mask for _, mask in items])
    found = explain(network, torch.stack([pixels for pixels, _ in items]).to(device))
    patches, shares = found.patches.cpu(), found.logits.float().softmax(1).amax(1).tolist()
    unseen = ~object_seen(masks, found.covered)
    background = background_share(patches, masks, found.covered).masked_fill(unseen, torch.nan)
    return [
        {
            "background": None if background[i].isnan() else float(background[i]),
            "half": half_share(patches[i], masks[i], found.covered),
            "confidence": shares[i],
        }
        for i in range(len(batch))
    ]


def _numbers(model: str, looks: Sequence[Look]) -> Salience:
    looks = [x for x in looks if x.background is not None]
    elsewhere, sparse = ([100.0 * kind(x) for x in looks] for kind in (_elsewhere, _sparse))
    sure = sum(x.confidence > SURE and (x.elsewhere or x.sparse) for x in looks)
    return Salience(model, estimate(elsewhere, PERCENT), estimate(sparse, PERCENT), sure)


def _pictures(title: str, looks: Sequence[Look], network: nn.Module, images: Images) -> Pictures:
    samples = {s.image.relative_to(images.root).as_posix(): s for s in images.samples}
    first = sorted(looks, key=lambda look: -look.confidence)[:SHOWN]
    cards = tuple(_card(look, network, samples[look.image], images) for look in first)
    return Pictures(
        title, f"the {SHOWN} predictions that the model is most confident of", len(looks), cards
    )


def _card(look: Look, network: nn.Module, sample: Sample, images: Images) -> gallery.Card:
    pixels, mask = images.read(sample)
    picture = to_picture(pixels, *images.scale)
    found = explain(network, pixels[None].to(next(network.parameters()).device))
    name = brief_names(network)[int(found.targets[0])]
    heat = gallery.outlined(overlay(picture, found.relevance[0].cpu()), mask.numpy() > 0.5)
    tiles = [
        gallery.Tile(tile_uri(picture), "image", f"{name} ({look.confidence:.0%})"),
        gallery.Tile(tile_uri(heat), "relevance", _caption(look)),
    ]
    return gallery.Card(look.image, name, tiles)


def _caption(look: Look) -> str:
    if look.background is None:
        return ""
    text = f"{look.background:.0%} on the background"
    if look.half is not None:
        text += f"; half of the rest on {look.half:.0%} of the object"
    return text


def summary(numbers: Salience) -> str:
    """What was found, in one sentence."""
    if numbers.background.value is None or numbers.sparse.value is None:
        return f"{numbers.model}: no image with a mask.\n"
    return (
        f"{numbers.model}: of {numbers.background.n} images {numbers.background.value:.1f} % have "
        f"more than {BACKGROUND:.0%} of the relevance on the background, and "
        f"{numbers.sparse.value:.1f} % half of the object's relevance on under {SPARSE:.0%} of "
        f"its patches; {numbers.sure} of these with a confidence above {SURE:.0%}.\n"
    )
