"""A frozen network whose answers another one learns: any supported model, or one of torchvision's.

A network of torchvision need not be a Vision Transformer: its answers are read, no map.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from refocus import fingerprints
from refocus.errors import InputError, first_line
from refocus.vit.checkpoints import read_weights
from refocus.vit.classes import class_count, folder_names, imagenet_outputs
from refocus.vit.loading import load, preprocessing, weights_digest

log = logging.getLogger("refocus")

_PREFIX, _AT = "torchvision:", "@"
_IMAGENET = 1000  # classes of all weights of torchvision's classifiers
_SIDE = 224  # input of a network of torchvision from a file, which says nothing of it
_Triple = tuple[float, ...]


@dataclass(frozen=True)
class Teacher:
    """Answers to pixels in [0, 1].

    names: of its outputs by class folder, where it carries them.
    """

    model: nn.Module
    size: tuple[int, int]
    mean: _Triple
    std: _Triple
    names: list[str] | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits `[B, K]` to pixels `[B, 3, H, W]`, resized to what it was trained on."""
        if tuple(pixels.shape[-2:]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(part).view(3, 1, 1).to(pixels) for part in (self.mean, self.std))
        with torch.no_grad():
            output = self.model((pixels - mean) / std)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits

    @property
    def digest(self) -> str:
        """A short fingerprint of its weights, its preprocessing and its names."""
        return fingerprints.of_text(
            weights_digest(self.model), self.size, self.mean, self.std, self.names
        )


def load_teacher(
    ref: str, student: nn.Module, *, pretrained: bool = True, device: str | torch.device = "cpu"
) -> Teacher:
    """A teacher for a student's classes.

    Args:
        ref: what `load` takes, "torchvision:NAME" (or NAME.WEIGHTS) of any classifier there, or
            "torchvision:NAME@FILE" with weights of your own.
        student: the model that learns.
        pretrained: False gives random weights and reads none, for checks.
        device: where to put it.

    Raises:
        InputError: no such network, weights of another one, or other classes than the student's.
    """
    named = ref.removeprefix(_PREFIX).partition(_AT)[0].partition(".")[0]
    of_torchvision = ref.startswith(_PREFIX) and (_AT in ref or not named.startswith("vit_"))
    if of_torchvision:
        found = _torchvision(ref, class_count(student), pretrained=pretrained)
    else:
        try:
            model = load(ref, pretrained=pretrained)
        except InputError as error:
            raise error.renamed("model", "teacher") from error
        config = preprocessing(model)
        size = (config["input_size"][1], config["input_size"][2])
        found = Teacher(model, size, config["mean"], config["std"], folder_names(model))
    _refuse_other_classes(ref, found, student)
    if not pretrained and not (folder_names(student) and found.names):  # once, before a run begins
        log.info("teacher %s: its outputs are taken for the model's by their numbers", ref)
    if of_torchvision and _AT not in ref and imagenet_outputs(student) != tuple(range(_IMAGENET)):
        raise InputError(
            f"‹teacher› {ref}: answers with ImageNet's classes in ImageNet's order, but the model "
            "has other outputs"
        )
    found.model.eval().requires_grad_(False).to(device)
    return found


def _torchvision(ref: str, classes: int, *, pretrained: bool) -> Teacher:
    text, _, file = ref.removeprefix(_PREFIX).partition(_AT)
    name, _, wanted = text.partition(".")
    legal = torchvision.models.list_models(module=torchvision.models)
    if name not in legal:
        raise InputError(f"‹teacher› {ref}: torchvision has no classifier {name!r}")
    if file:
        model = torchvision.models.get_model(name, weights=None, num_classes=classes)
        if not Path(file).expanduser().is_file():
            raise InputError(f"‹teacher› {ref}: no such file")
        if pretrained:
            _fill(model, Path(file).expanduser(), ref)
        mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        return Teacher(model, (_SIDE, _SIDE), mean, std)
    table = torchvision.models.get_model_weights(name)
    known = [row.name for row in table]
    if wanted and wanted not in known:
        raise InputError(f"‹teacher› {ref}: no such weights; choose one of {', '.join(known)}")
    chosen: Any = table[wanted] if wanted else table.DEFAULT
    try:
        model = torchvision.models.get_model(name, weights=chosen if pretrained else None)
    except Exception as error:  # what a failed download raises differs
        raise InputError(
            f"‹teacher› {ref}: its weights cannot be fetched ({first_line(error)})"
        ) from error
    preset = chosen.transforms()
    side = preset.crop_size[0]
    return Teacher(model, (side, side), tuple(preset.mean), tuple(preset.std))


def _fill(model: nn.Module, file: Path, ref: str) -> None:
    weights = read_weights(file, f"‹teacher› {ref}")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"‹teacher› {ref}: not weights of this network with the model's classes "
            f"({first_line(error)})"
        ) from error


def _refuse_other_classes(ref: str, found: Teacher, student: nn.Module) -> None:
    """A teacher's outputs must mean the student's classes, in their order."""
    was = found.model.training
    found.model.eval()
    count = found(torch.zeros(1, 3, *found.size)).shape[1]
    found.model.train(was)
    if count != class_count(student):
        raise InputError(
            f"‹teacher› {ref}: has {count} classes, the model {class_count(student)}; its outputs "
            "must be the model's"
        )
    names = folder_names(student)
    if names and found.names and names != found.names:
        at = next(
            i for i, pair in enumerate(zip(names, found.names, strict=True)) if len({*pair}) > 1
        )
        raise InputError(
            f"‹teacher› {ref}: its output {at} is {found.names[at]!r}, the model's {names[at]!r}"
        )
