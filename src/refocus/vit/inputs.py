"""What the public functions are given, checked once a call: shape, type, device, range, finiteness.

Shapes, types and devices cost nothing to check. Values are looked at together, so that a call on a
GPU waits for it once. Functions of this package that call one another skip the checks.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from refocus.errors import InputError, first_line
from refocus.vit.classes import head_size
from refocus.vit.families import family
from refocus.vit.wrappers import unwrap

T = TypeVar("T")
_FAR = 20  # times the reach of normalized pixels; 0..255 pixels lie further out, noise does not
_SLACK = 1e-3  # beyond 0 and 1, for masks that were resized in floats
_NORMALIZED = "normalized floats [B, 3, height, width]"
_HOW = "refocus.eval_image(model)(image)[None] makes them of a PIL image"
_WHITE = 255
_OF_SIZE = re.compile(r"\b(sizes?|shapes?)\b")  # in complaints of torch
_AXES, _CHANNELS = 4, 3  # images are [B, 3, height, width]


def check_model(model: object, name: str = "model") -> None:
    """Refuse what is no module, such as the name of one.

    Raises:
        InputError: names the type, and `refocus.load`.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{name}: {shown(model)}; must be a torch.nn.Module, such as refocus.load returns"
        )


def check_gradients(model: nn.Module) -> None:
    """Refuse a model that can have no gradients.

    Raises:
        InputError: it was made in inference mode.
    """
    if any(weight.is_inference() for weight in model.parameters()):
        raise InputError(
            "model: made or loaded inside torch.inference_mode(), so it can have no gradients; "
            "make it outside"
        )


def check_images(model: nn.Module, images: object) -> None:
    """Normalized floats `[B, 3, height, width]` that this model can be given.

    Raises:
        InputError: another type, shape or device, NaN or infinity, or pixels of 0 to 255.
    """
    _check_form(model, images)
    assert isinstance(images, Tensor)
    if images.numel():
        _check_pixels(model, *_looked_at(images))


def check_batch(
    model: nn.Module, images: object, masks: object, labels: Any, *, reads_labels: bool
) -> tuple[Tensor, Tensor]:
    """A batch to train on; returns masks `[B, 1, H, W]` in the images' type and labels as int64.

    Args:
        model: the module that is trained.
        images: normalized floats `[B, 3, H, W]`, B at least 1.
        masks: `[B, 1, H, W]` or `[B, H, W]`, boolean or numbers in [0, 1].
        labels: class indices `[B]`, integers below the number of the model's outputs.
        reads_labels: False where labels are not such and are handed on as they are.

    Raises:
        InputError: names the argument, what it is and what is legal.
    """
    _check_form(model, images)
    assert isinstance(images, Tensor)
    if not len(images):
        raise InputError("images: an empty batch; must hold at least one image")
    shaped = _mask_form(images, masks)
    labels = _label_form(images, labels) if reads_labels else labels
    dark, bright, low, high, *ends = _looked_at(images, shaped, *([labels] if reads_labels else []))
    _check_pixels(model, dark, bright)
    check_share("masks", low, high)
    if ends:
        _check_range("labels", head_size(model), *ends)
    return shaped, labels


def check_path(path: object, name: str = "path") -> Path:
    """A path given as text or `Path`; `~` is the user's home.

    Raises:
        InputError: anything else, such as an open file or an array.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise InputError(f"{name}: {shown(path)}; must be the path of a file, str or Path")
    return Path(path).expanduser()


def check_flag(name: str, value: object) -> bool:
    """Yes or no; a text such as "no" would count as yes.

    Raises:
        InputError: anything else than True and False (or 1 and 0).
    """
    if not isinstance(value, bool | int | np.bool_) or value not in (0, 1):
        raise InputError(f"‹{name}› {value}: must be True or False")
    return bool(value)


def check_reference(model: object, name: str = "model") -> str:
    """A model given by name or folder, as text or `Path`.

    Raises:
        InputError: anything else, such as the module itself.
    """
    if not isinstance(model, str | os.PathLike) or not str(model):
        raise InputError(
            f"{name}: {shown(model)}; must be a name or a folder that refocus.load takes, str or "
            "Path"
        )
    return str(model)


def check_settings(settings: object, kind: type[T]) -> T:
    """Settings of a kind; None stands for its defaults.

    Raises:
        InputError: anything else, such as a dictionary.
    """
    if settings is None:
        return kind()
    if not isinstance(settings, kind):
        raise InputError(f"settings: {shown(settings)}; must be a refocus.{kind.__name__}")
    return settings


def check_maps(name: str, values: object, axes: str) -> Tensor:
    """Floats or booleans of the axes named, such as "B, H, W"; booleans become float32.

    Raises:
        InputError: another type or number of axes.
    """
    if not isinstance(values, Tensor) or values.ndim != len(axes.split(",")):
        raise InputError(f"{name}: {shown(values)}; must be a tensor [{axes}]")
    return values if values.is_floating_point() else values.float()


def check_masks(name: str, values: object, axes: str) -> Tensor:
    """As `check_maps`, and every value in [0, 1].

    Raises:
        InputError: names the range found.
    """
    masks = check_maps(name, values, axes)
    if masks.numel():
        check_share(name, *_looked_at(masks))
    return masks


def check_share(name: str, low: float, high: float) -> None:
    """The least and the largest value of a mask.

    Raises:
        InputError: outside [0, 1], NaN among them.
    """
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    hint = "; divide 0/255 masks by 255" if low >= 0 and 1 < high <= _WHITE else ""
    raise InputError(
        f"{name}: values from {low:g} to {high:g}; must be 0 (background) to 1 (object){hint}"
    )


@contextmanager
def fitting(images: Tensor) -> Iterator[None]:
    """Within the `with`, a pass, how libraries complain about a size becomes an `InputError`."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except (AssertionError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _OF_SIZE.search(str(error)):
            raise  # of the machine, or of code that is none of ours
        raise InputError(
            f"images: {list(images.shape)}: the model does not take them ({first_line(error)})"
        ) from error


def whole(values: Tensor) -> bool:
    """Whether a tensor is of an integer type; boolean is none."""
    kind = values.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def shown(value: object) -> str:
    """A value as an error message names it: type, shape and where it lies."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{list(value.shape)} {kind}"
    name = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    size = getattr(value, "shape", None) or getattr(value, "size", None)
    return f"{name} {list(size)}" if isinstance(size, tuple) else f"{name} {_short(value)}".rstrip()


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float | bool) else ""


# --- form: known without looking at a value -----------------------------------------------------


def _check_form(model: nn.Module, images: object) -> None:
    if not isinstance(images, Tensor):
        raise InputError(f"images: {shown(images)}; must be {_NORMALIZED}: {_HOW}")
    fits = images.ndim == _AXES and images.shape[1] == _CHANNELS
    if not fits or not images.is_floating_point():
        hint = "; images[None] adds the batch" if images.ndim == _AXES - 1 else ""
        raise InputError(f"images: {shown(images)}; must be {_NORMALIZED}{hint}")
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    if not weights:
        return
    if weights[0].device != images.device:
        raise InputError(
            f"images: on {images.device}, the model on {weights[0].device}; must be on one device"
        )
    if _casts(model, images) or any(weight.dtype == images.dtype for weight in weights):
        return
    kinds = [str(kind).removeprefix("torch.") for kind in (images.dtype, weights[0].dtype)]
    raise InputError(f"images: {kinds[0]}, the model's weights {kinds[1]}; must be of one type")


def _casts(model: nn.Module, images: Tensor) -> bool:
    """Whether something brings pixels and weights to one type; only these families never do."""
    row = family(model)
    never = row is not None and (
        row[1].library in ("timm", "torchvision") or row[0] == "BEiT (transformers)"
    )
    return not never or torch.is_autocast_enabled(images.device.type)


def _mask_form(images: Tensor, masks: object) -> Tensor:
    count, _, height, width = images.shape
    legal = [(count, 1, height, width), (count, height, width)]
    if not isinstance(masks, Tensor) or tuple(masks.shape) not in legal or masks.is_complex():
        raise InputError(
            f"masks: {shown(masks)}; must be {list(legal[0])} or {list(legal[1])}, one for each "
            "image and of its size, 0 (background) to 1 (object)"
        )
    _same_device("masks", masks, images)
    return masks.reshape(legal[0]).to(images.dtype)


def _label_form(images: Tensor, labels: object) -> Tensor:
    if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or not whole(labels):
        raise InputError(
            f"labels: {shown(labels)}; must be class indices [{len(images)}] of type int64, one "
            "for each image"
        )
    _same_device("labels", labels, images)
    return labels.long()


def _same_device(name: str, values: Tensor, images: Tensor) -> None:
    if values.device != images.device:
        raise InputError(
            f"{name}: on {values.device}, images on {images.device}; must be on one device"
        )


# --- values -------------------------------------------------------------------------------------


def _looked_at(*tensors: Tensor) -> list[float]:
    """The least and the largest value of each tensor, NaN where one is, in one transfer."""
    ends = [end.float() for tensor in tensors for end in torch.aminmax(tensor.detach())]
    found: list[float] = torch.stack(ends).tolist()
    return found


def _check_pixels(model: nn.Module, low: float, high: float) -> None:
    largest = max(-low, high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("images: hold NaN or infinite values; must be finite floats")
    if largest > _FAR * _reach(model):
        raise InputError(
            f"images: values as far as {largest:g} from 0; must be {_NORMALIZED}, not pixels "
            f"of 0 to 255: {_HOW}"
        )


def check_outputs(name: str, indices: Tensor, logits: Tensor) -> None:
    """Class indices against the outputs that there are, logits `[B, K]`; other labels pass.

    A model may have another head than it says.

    Raises:
        InputError: an index that is no output.
    """
    if indices.numel() and whole(indices):
        _check_range(name, logits.shape[1], *_looked_at(indices))


def _check_range(name: str, classes: int | None, *ends: float) -> None:
    least, most = ends
    if least < 0 or (classes is not None and most >= classes):
        legal = "0 or more" if classes is None else f"0 to {classes - 1}, the model's classes"
        raise InputError(f"{name}: {least:.0f} to {most:.0f}; must be {legal}")


def _reach(model: nn.Module) -> float:
    """How far from 0 black or white lies after the model's own normalization."""
    config: Any = getattr(unwrap(model), "pretrained_cfg", None)
    known = config if isinstance(config, dict) else {}
    means, stds = known.get("mean") or (0.5,), known.get("std") or (0.5,)
    return float(max(max(m, 1 - m) / s for m, s in zip(means, stds, strict=False)))
