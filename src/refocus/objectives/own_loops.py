"""Objectives in training loops of your own: images with masks, batches, transformers' Trainer.

Imports neither transformers nor Lightning.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors

from refocus.data.folders import scan
from refocus.data.images import mask_of, read_image
from refocus.data.polarity import ASK
from refocus.data.sources.opened import opened_pair
from refocus.data.transforms import joint_transform
from refocus.errors import InputError
from refocus.masks.trust import masked
from refocus.objectives.registry import Step
from refocus.records import Sample
from refocus.vit.inputs import check_model

Row = dict[str, Any]  # pixel_values [3, H, W], masks [1, H, W], labels; of a batch with B in front


class MaskedRows(Dataset[Row]):
    """Images with masks as rows that `collate` and the trainers take.

    samples: those that have a mask.
    """

    def __init__(self, samples: Sequence[Sample], transform: Any) -> None:
        self.samples, self.transform = list(samples), transform

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.samples)

    def __getitem__(self, position: int) -> Row:
        """The normalized image, its mask as `tv_tensors.Mask`, and the class index."""
        sample = self.samples[position]
        image = read_image(sample.image)
        pixels, mask = self.transform(image, tv_tensors.Mask(mask_of(sample, image)))
        masks = tv_tensors.Mask(mask.as_subclass(Tensor).float())
        return {
            "pixel_values": pixels.as_subclass(Tensor),
            "masks": masks,
            "labels": sample.label,
        }


def masked_images(
    model: nn.Module,
    images: str | Path,
    masks: str | Path | None = None,
    *,
    train: bool = True,
    flip: float = 0.5,
    mask_polarity: str = ASK,
    mask_score: float = 0.5,
) -> MaskedRows:
    """A dataset of the images of a folder that have a mask, for a loop of your own.

    Each row is a dictionary: pixel_values, normalized as the model wants them, `[3, H, W]`; masks,
    a `tv_tensors.Mask` `[1, H, W]` in [0, 1], so that transforms of torchvision treat it as one;
    labels, the class index.

    Args:
        model: from `refocus.load`, whose classes the folders are.
        images: ImageFolder, or any source that docs/inputs.md names.
        masks: CLASS/STEM.png; None where the source carries them.
        train: crop and flip at random; else the model's own evaluation crop.
        flip: probability of a left-right flip.
        mask_polarity: "ask", "keep" or "invert".
        mask_score: masks that `refocus masks` scored lower are left out, in [0, 1].

    Returns:
        Images in the order of the listing; another draw of crops each time one is read.

    Raises:
        InputError: a class that the model does not know, no masks, or none of that score.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example", per_class=1)
        >>> rows = refocus.masked_images(
        ...     refocus.load(example.model), example.images, example.masks
        ... )
        >>> type(rows[0]["masks"]).__name__
        'Mask'
    """
    check_model(model)
    if isinstance(mask_score, bool) or not isinstance(mask_score, Real) or not 0 <= mask_score <= 1:
        raise InputError(f"‹mask_score› {mask_score}: must be a number between 0 and 1")
    found = opened_pair(images, masks)
    if found.masks is None:
        raise InputError(f"‹masks›: missing; {images} carries none")
    samples = scan(found.images, model, masks=found.masks, mask_polarity=mask_polarity)
    usable = masked(samples, found.masks, mask_score)
    return MaskedRows(usable, joint_transform(model, train=train, flip=flip))


def collate(rows: Sequence[Row]) -> Row:
    """Rows of `masked_images` as one batch; masks stay a `tv_tensors.Mask`.

    Args:
        rows: dictionaries of pixel_values, masks and labels.

    Returns:
        pixel_values `[B, 3, H, W]`, masks `[B, 1, H, W]`, labels `[B]`.

    Raises:
        KeyError: a row lacks one of the three.

    Examples:
        >>> import torch, refocus
        >>> row = {"pixel_values": torch.zeros(3, 8, 8), "masks": torch.ones(1, 8, 8), "labels": 1}
        >>> batch = refocus.collate([row, row])
        >>> list(batch["masks"].shape), batch["labels"].tolist()
        ([2, 1, 8, 8], [1, 1])
    """
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "masks": tv_tensors.Mask(torch.stack([row["masks"].as_subclass(Tensor) for row in rows])),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


class TrainerMixin:
    """Makes transformers' `Trainer` train an objective; put it before `Trainer` in the bases.

    step: what `refocus.objective` returns. In training a batch holds pixel_values, masks and
    labels; evaluation goes by `Trainer`'s own loss. The terms are logged beside the loss.

    Examples:
        >>> import refocus
        >>> from transformers import Trainer
        >>> class Refocused(refocus.TrainerMixin, Trainer):
        ...     step = staticmethod(refocus.objective("refocus"))
    """

    step: Step

    def __init_subclass__(cls, **named: Any) -> None:
        """Refuse bases in an order, or a step in a form, that would not train the objective."""
        super().__init_subclass__(**named)
        before = cls.__mro__[: cls.__mro__.index(TrainerMixin)]
        for base in before:
            own = not issubclass(base, TrainerMixin)
            if own and "compute_loss" in vars(base) and hasattr(base, "train"):
                raise InputError(
                    f"{cls.__name__}: {base.__name__} comes before TrainerMixin, so it would train "
                    f"its own loss; must be class {cls.__name__}(TrainerMixin, {base.__name__})"
                )
        if not _callable_as(vars(cls).get("step"), cls):
            raise InputError(
                f"{cls.__name__}: step would be given the trainer as its model; must be "
                "staticmethod(refocus.objective(...))"
            )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As `Trainer`, which passes on columns by the model's signature, where masks are not."""
        given = named.get("args") or (arguments[1] if len(arguments) > 1 else None)
        if getattr(given, "remove_unused_columns", True):
            raise InputError("args: set remove_unused_columns=False, or masks would be left out")
        super().__init__(*arguments, **named)
        # a mean over images, which Trainer has to divide when it accumulates gradients
        self.model_accepts_loss_kwargs = False
        self._terms: dict[str, list[Tensor]] = defaultdict(list)

    def train(self, *arguments: Any, **named: Any) -> Any:
        """As `Trainer`'s.

        Raises:
            InputError: there is no step.
        """
        if not callable(getattr(self, "step", None)):
            raise InputError(
                f"{type(self).__name__}: has no step; set step = "
                "staticmethod(refocus.objective(...)) in its class"
            )
        parent: Any = super()
        return parent.train(*arguments, **named)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Row,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **rest: Any,
    ) -> Any:
        """The objective's loss in training, the model's own in evaluation.

        Raises:
            InputError: a training batch without masks.
        """
        masks = inputs.get("masks")
        if return_outputs or not model.training:
            plain = {name: value for name, value in inputs.items() if name != "masks"}
            parent: Any = super()
            return parent.compute_loss(model, plain, return_outputs, num_items_in_batch, **rest)
        if masks is None:
            raise InputError("masks: missing from the batch; each row must hold a mask [1, H, W]")
        terms = self.step(model, inputs["pixel_values"], masks, inputs["labels"])
        for name, value in terms.items():
            if name != "loss":
                self._terms[name].append(value.detach())
        return terms["loss"]

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        """What `Trainer` logs, and the mean of each term since the last line."""
        if "loss" in logs:
            means = {name: float(torch.stack(v).mean()) for name, v in self._terms.items()}
            logs = {**logs, **means}
            self._terms.clear()
        parent: Any = super()
        parent.log(logs, *arguments, **named)


def _callable_as(step: object, owner: type) -> bool:
    """Whether an instance's `step`, if its class sets one, takes the four arguments of a step."""
    if not inspect.isfunction(step):  # nothing, a staticmethod, a property, a callable object
        return True
    try:
        inspect.signature(step).bind(owner, *("model", "images", "masks", "labels"))
    except TypeError:
        return False
    return True
