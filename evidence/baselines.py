"""Baselines as the literature has them, on the whole pool, each from the same base model.

All but the refitted last layers take steps of the same loop (`refocus.tuning.loop.descend`), batch,
optimizer and schedule as the objectives; what differs is which images are drawn and the loss.
Whether a method reads group labels (class and place) stands in the table of methods.

Axes: images `[B, 3, H, W]`, masks `[B, 1, H, W]`, labels `[B]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from evidence.base import fresh
from evidence.sources import Part, Source
from evidence.work import BATCH, WEIGHT_DECAY, Outcome, Work, stage
from refocus.data.images import mask_of, read_image
from refocus.data.swaps import swap_backgrounds
from refocus.data.transforms import joint_transform
from refocus.records import Sample
from refocus.relevance.answers import last_linear_input, logits_of
from refocus.tuning.loop import descend
from refocus.vit.classes import class_count, class_names
from refocus.vit.loading import load

Terms = dict[str, Tensor]
Loss = Callable[..., Terms]  # (model, images, masks, labels, groups) -> its terms

_SKLEARN = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
_DRO_RATE = 0.01  # step of the groups' weights, as the authors have it
_JTT_FACTOR = 20.0  # 20, 50 and 100 in the paper; the smallest for our short runs
_HALF_OF_BATCHES = 0.5  # of the batches are mixed or swapped, so that originals stay in training
_LAYER_STEPS = 10  # steps of a last layer for each step of the others: they cost nothing
# how an L1 penalty is called: until scikit-learn 1.7, and from 1.8 on
_L1 = {"penalty": "l1"} if _SKLEARN < (1, 8) else {"l1_ratio": 1}
_SUBSETS = 10  # balanced ones, over which the last layer of DFR is averaged
_FEATURE_BATCH = 32
_PROBE_ITERATIONS = 2000  # of the probe's regression, enough to converge


# --- images ---------------------------------------------------------------------------------------


class Images:
    """Samples as they train: crop and flip of the product, the mask empty where there is none."""

    def __init__(self, samples: Sequence[Sample], groups: Sequence[int], model: nn.Module) -> None:
        self.samples, self.groups = samples, groups
        self.transform = joint_transform(model, train=True)

    def batch(self, positions: Sequence[int], seed: int) -> list[Tensor]:
        """Images, masks, labels and groups; crops follow from the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = [self._one(self.samples[i]) for i in positions]
        images, masks = (torch.stack(column) for column in zip(*pairs, strict=True))
        labels = torch.tensor([self.samples[i].label for i in positions])
        return [images, masks, labels, torch.tensor([self.groups[i] for i in positions])]

    def _one(self, sample: Sample) -> tuple[Tensor, Tensor]:
        image = read_image(sample.image)
        empty = torch.zeros(1, image.height, image.width)
        mask = empty if sample.mask is None else mask_of(sample, image)
        pixels, moved = self.transform(image, tv_tensors.Mask(mask))
        return pixels.as_subclass(Tensor), moved.as_subclass(Tensor).float()


def group_of(sample: Sample, source: Source) -> str:
    """Class and place of an image, by the file's name."""
    return f"{sample.image.parent.name} on {source.places[sample.image.stem]}"


def numbered(names: Sequence[str]) -> list[int]:
    """Each name as the position of it among the sorted distinct ones."""
    position = {name: i for i, name in enumerate(sorted(set(names)))}
    return [position[name] for name in names]


def balanced(groups: Sequence[int]) -> Tensor:
    """Weights with which each group is drawn alike often, `[n]`."""
    counts = np.bincount(groups)
    return torch.tensor([1 / counts[g] for g in groups], dtype=torch.float64)


def draws(size: int, steps: int, seed: int, weights: Tensor | None = None) -> Iterator[list[int]]:
    """Positions of each step: without weights every image once in turn, else drawn by them."""
    generator = torch.Generator().manual_seed(seed)
    if weights is not None:
        for _ in range(steps):
            yield torch.multinomial(weights, BATCH, True, generator=generator).tolist()
        return
    left: list[int] = []
    for _ in range(steps):
        while len(left) < BATCH:
            left += torch.randperm(size, generator=generator).tolist()
        yield left[:BATCH]
        left = left[BATCH:]


# --- the loop -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a baseline changes of plain training: the draw of images, and the loss."""

    loss: Loss
    weights: Tensor | None = None


def steps_of(work: Work, model: nn.Module, images: Images, plan: Plan) -> None:
    """Train all weights of `model` in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: stage(s, work.steps))
    order = draws(len(images.samples), work.steps, work.seed, plan.weights)

    def step(trained: nn.Module, *batch: Tensor) -> Terms:
        with work.autocast():
            return plan.loss(trained, *batch)

    batches = (
        (1.0, images.batch(positions, work.seed * 1_000_003 + number))
        for number, positions in enumerate(order)
    )
    torch.manual_seed(work.seed)  # mixing draws from torch's own generator
    descend(model, optimizer, batches, step, advance=schedule.step)
    model.eval()


def _on_pool(
    work: Work,
    plan: Callable[[nn.Module, list[Sample], list[int]], tuple[Plan, dict[str, Any]]],
    *,
    groups: bool = False,
    masked: bool = False,
) -> Outcome:
    """Plain or changed training on the whole pool."""
    model = load(work.model)
    pool = work.source.pool
    samples = pool.masked(model) if masked else pool.samples(model)
    names = [group_of(s, work.source) if groups else str(s.label) for s in samples]
    numbers = numbered(names)
    chosen, notes = plan(model, samples, numbers)
    steps_of(work, model, Images(samples, numbers, model), chosen)
    return outcome(model, samples, work.steps, notes)


def outcome(
    model: nn.Module, samples: Sequence[Sample], steps: int, notes: dict[str, Any]
) -> Outcome:
    """The model as it is now, and the samples that made it so."""
    names = class_names(model) or []
    return Outcome(
        {name: value.detach().clone() for name, value in model.state_dict().items()},
        [f"{s.image.parent.name}/{s.image.name}" for s in samples],
        sorted({names[s.label] if names else str(s.label) for s in samples}),
        steps,
        steps * BATCH,
        notes,
    )


def _classification(logits: Tensor, targets: Tensor) -> Terms:
    loss = F.cross_entropy(logits.float(), targets)
    return {"loss": loss}


# --- with all weights -----------------------------------------------------------------------------


def erm(work: Work) -> Outcome:
    """Empirical risk minimization for longer: plain cross-entropy on the whole pool."""

    def loss(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, g: Tensor) -> Terms:
        return _classification(logits_of(model, images), labels)

    return _on_pool(work, lambda *_: (Plan(loss), {}))


def cutmix(work: Work) -> Outcome:
    """CutMix (Yun et al., ICCV 2019): a box of another image, labels by its area.

    Half of the batches, as in the paper's CIFAR recipe; torchvision's own.
    """

    def plan(model: nn.Module, *_: Any) -> tuple[Plan, dict[str, Any]]:
        mix = v2.CutMix(num_classes=class_count(model))

        def loss(m: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, g: Tensor) -> Terms:
            if torch.rand(()) < _HALF_OF_BATCHES:
                images, labels = mix(images, labels)
            return _classification(logits_of(m, images), labels)

        return Plan(loss), {}

    return _on_pool(work, plan)


def background_randomization(work: Work) -> Outcome:
    """Objects on other images' backgrounds (Xiao et al., ICLR 2021; Ryali et al., 2021, "BG_Rand").

    Half of the batches of the whole pool, cross-entropy; the swap is the product's own.
    """

    def loss(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, g: Tensor) -> Terms:
        if torch.rand(()) < _HALF_OF_BATCHES:
            images = swap_backgrounds(images, masks, images.roll(1, 0), masks.roll(1, 0))
        return _classification(logits_of(model, images), labels)

    return _on_pool(work, lambda *_: (Plan(loss), {}), masked=True)


def group_dro(work: Work) -> Outcome:
    """GroupDRO (Sagawa et al., ICLR 2020, Algorithm 1), with group labels.

    Weights of groups rise with their losses; groups are drawn alike often, as in the authors' runs.
    """

    def plan(model: nn.Module, _: Any, groups: list[int]) -> tuple[Plan, dict[str, Any]]:
        shares = torch.ones(max(groups) + 1) / (max(groups) + 1)

        def loss(m: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, g: Tensor) -> Terms:
            each = F.cross_entropy(logits_of(m, images).float(), labels, reduction="none")
            return {"loss": robust_loss(each, g, shares)}

        return Plan(loss, balanced(groups)), {"groups": max(groups) + 1}

    return _on_pool(work, plan, groups=True)


def robust_loss(losses: Tensor, groups: Tensor, shares: Tensor) -> Tensor:
    """The groups' mean losses weighted by `shares` `[G]`, which are moved towards the worst.

    Args:
        losses: of each image, `[B]`.
        groups: of each image, `[B]`.
        shares: changed in place; they sum to 1. A group without an image in the batch has no loss.
    """
    counts = torch.bincount(groups, minlength=len(shares))
    means = torch.zeros_like(shares).index_add(0, groups, losses) / counts.clamp(min=1)
    with torch.no_grad():
        shares.mul_(torch.exp(_DRO_RATE * means))
        shares.div_(shares.sum())
    return (shares * means).sum()


def jtt(work: Work) -> Outcome:
    """Just train twice (Liu et al., ICML 2021), without group labels.

    The errors on training images of a model that trained for one epoch are drawn 20 times as often.
    Deviation: the second training starts from the base model, as that of all others here.
    """

    def plan(model: nn.Module, samples: list[Sample], _: Any) -> tuple[Plan, dict[str, Any]]:
        identifier = load(work.early or work.model)
        wrong = errors(identifier, samples, work)

        def loss(m: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, g: Tensor) -> Terms:
            return _classification(logits_of(m, images), labels)

        weights = 1 + (_JTT_FACTOR - 1) * wrong.double()
        own = {"early": work.early is not None, "errors": int(wrong.sum())}
        return Plan(loss, weights), own

    return _on_pool(work, plan)


def errors(model: nn.Module, samples: Sequence[Sample], work: Work) -> Tensor:
    """Which images a model gets wrong, bool `[n]`."""
    _, logits = features(model, samples, work)
    return logits.argmax(1) != torch.tensor([s.label for s in samples])


# --- the last layer alone -------------------------------------------------------------------------


def features(model: nn.Module, samples: Sequence[Sample], work: Work) -> tuple[Tensor, Tensor]:
    """What the classifier reads `[n, D]`, and the logits `[n, K]`, on the evaluation crop."""
    transform = joint_transform(model, train=False)
    found = []
    model.eval()
    for start in range(0, len(samples), _FEATURE_BATCH):
        part = samples[start : start + _FEATURE_BATCH]
        images = torch.stack([transform(read_image(s.image)) for s in part])
        with torch.inference_mode(), work.autocast():
            logits, read = last_linear_input(model, images)
        found.append((read.float(), logits.float()))
    read, logits = (torch.cat(column) for column in zip(*found, strict=True))
    return read.clone(), logits.clone()


def _refit_on(source: Source) -> Part:
    """Images that did not train the network where there are such."""
    return source.held or source.pool


def dfr(work: Work) -> Outcome:
    """Deep feature reweighting (Kirichenko et al., ICLR 2023), with group labels.

    The last layer alone, an L1 logistic regression of standardized features; the mean over ten
    subsets in which every group has as many images as the smallest. `rate` is its C. Two classes.
    """
    model = load(work.model)
    samples = _refit_on(work.source).samples(model)
    groups = numbered([group_of(s, work.source) for s in samples])
    read, _ = features(model, samples, work)
    labels = np.array([s.label for s in samples])
    scaler = StandardScaler().fit(read.numpy())
    scaled = scaler.transform(read.numpy())
    rng = np.random.default_rng(work.seed)
    fits = []
    for _ in range(_SUBSETS):
        chosen = equal_groups(np.array(groups), rng)
        head = LogisticRegression(**_L1, C=work.rate, solver="liblinear", random_state=0)
        head.fit(scaled[chosen], labels[chosen])
        fits.append((head.coef_[0], head.intercept_[0]))
    slope, offset = (np.mean(column, axis=0) for column in zip(*fits, strict=True))
    slope = slope / scaler.scale_
    _set_head(model, *_second_against_first(slope, float(offset - slope @ scaler.mean_)))
    return outcome(model, samples, 0, {"groups": len(set(groups))})


def equal_groups(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of a subset in which each group has as many images as the smallest."""
    least = np.bincount(groups).min()
    return np.concatenate(
        [rng.permutation(np.flatnonzero(groups == g))[:least] for g in np.unique(groups)]
    )


def _second_against_first(slope: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two classes, of which the second wins where slope x + offset > 0."""
    return np.stack([-slope, slope]) / 2, np.array([-offset, offset]) / 2


def _set_head(model: nn.Module, slopes: np.ndarray, offsets: np.ndarray) -> None:
    """Set the last layer to slopes `[K, D]` and offsets `[K]`."""
    head: Any = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(slopes, dtype=torch.float32))
        head.bias.copy_(torch.as_tensor(offsets, dtype=torch.float32))


def linear_probe(work: Work) -> Outcome:
    """A new last layer on the backbone as it was before the base model was fine-tuned.

    A class-balanced L2 logistic regression of standardized features, on the pool; `rate` is its C.
    Averaged 50/50 with the base model it is WiSE-FT (Wortsman et al., CVPR 2022), with a probe in
    the place of the zero-shot classifier. Fine-tuning can distort features that transfer better
    (Kumar et al., ICLR 2022).
    """
    base = load(work.model)
    samples = work.source.pool.samples(base)
    model = fresh(class_names(base) or [])
    read, _ = features(model, samples, work)
    scaler = StandardScaler().fit(read.numpy())
    fit = LogisticRegression(C=work.rate, class_weight="balanced", max_iter=_PROBE_ITERATIONS)
    fit.fit(scaler.transform(read.numpy()), [s.label for s in samples])
    slope = fit.coef_ / scaler.scale_
    offset = fit.intercept_ - slope @ scaler.mean_
    if len(slope) == 1:  # of two classes it fits the second alone
        slope, offset = _second_against_first(slope[0], float(offset[0]))
    _set_head(model, slope, offset)
    return outcome(model, samples, 0, {})


def last_layer(work: Work, *, biased: bool = False) -> Outcome:
    """Class-balanced last-layer retraining (LaBonte et al., NeurIPS 2023), without group labels.

    Steps of the optimizer on fixed features of the evaluation crop, classes drawn alike often.

    biased: on the training images, even if others are held out in which the shortcut fails.
    """
    model = load(work.model)
    part = work.source.pool if biased else _refit_on(work.source)
    samples = part.samples(model)
    read, _ = features(model, samples, work)
    labels = torch.tensor([s.label for s in samples])
    head: Any = model.get_classifier()  # type: ignore[operator]
    optimizer = torch.optim.AdamW(head.parameters(), lr=work.rate, weight_decay=WEIGHT_DECAY)
    steps = _LAYER_STEPS * work.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: stage(s, steps))
    weights = balanced(numbered([str(s.label) for s in samples]))
    order = draws(len(samples), steps, work.seed, weights)
    batches = ((1.0, [read[at], labels[at]]) for at in order)
    descend(
        head,
        optimizer,
        batches,
        lambda layer, x, y: _classification(layer(x), y),  # type: ignore[arg-type, misc]
        advance=schedule.step,
    )
    return outcome(model.eval(), samples, steps, {})
