"""A model as one ONNX file, checked against the torch model before it counts as written."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refocus.errors import InputError, first_line
from refocus.files import of_the_disk, replacing
from refocus.vit.classes import folder_names
from refocus.vit.inputs import check_model, check_path
from refocus.vit.loading import preprocessing
from refocus.vit.meanwhile import quiet

TOLERANCE = 1e-4  # of the largest logit; float32 sums in another order differ by about 1e-6 of it
_BATCHES = (1, 3)  # sizes that are asked; the file takes any
_IMAGES, _LOGITS = "images", "logits"


@dataclass(frozen=True)
class Exported:
    """An ONNX file and how far its answers are from the model's.

    difference: the largest of all logits asked for, as a share of the largest logit.
    """

    file: Path
    difference: float
    tolerance: float
    images: int  # how many it was asked about


class _Logits(nn.Module):
    """Images to logits, whichever record the library returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        found = self.model(images)
        logits: Tensor = getattr(found, "logits", found)
        return logits


def export_onnx(model: nn.Module, file: str | Path, *, tolerance: float = TOLERANCE) -> Exported:
    """Write a model as ONNX: images `[B, 3, H, W]`, normalized, to logits `[B, K]`, any B.

    The file's metadata holds the preprocessing and the class names, as JSON.

    Args:
        model: from `refocus.load`; it is left as it is.
        file: a new file.
        tolerance: largest difference between the logits of torch and onnxruntime on random
            images, as a share of the largest logit.

    Returns:
        The difference that was found.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing, the file exists or cannot be there,
            the weights are not float32, the model cannot be exported, or its answers differ by more
            than `tolerance`; nothing is written then.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> model = refocus.load(write("example").model)
        >>> made = refocus.export_onnx(model, "model.onnx")
        >>> made.difference < made.tolerance
        True
    """
    check_model(model)
    file = check_path(file, "onnx")
    _check_tolerance(tolerance)
    _refuse_other_format(model)
    if file.exists():
        raise InputError(f"‹onnx› {file}: exists and is not overwritten; name a new file")
    _needed()
    config = preprocessing(model)
    size = tuple(config["input_size"])
    logits = _Logits(deepcopy(model).to("cpu").eval())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if of_the_disk(error):
            raise
        raise InputError(f"‹onnx› {file}: cannot be written ({error.strerror})") from error
    with replacing(file) as partial:
        _write(logits, size, partial)
        _describe(partial, config, folder_names(model))
        difference = _difference(logits, size, partial)
        if not difference <= tolerance:  # nor where an answer is no number
            raise InputError(
                f"‹onnx› {file}: its logits differ from the model's by {difference:.2g} of the "
                f"largest; must be at most ‹tolerance› {tolerance:g}"
            )
    return Exported(file, difference, tolerance, sum(_BATCHES))


def _check_tolerance(tolerance: object) -> None:
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not float(tolerance) >= 0:
        raise InputError(f"‹tolerance› {tolerance}: must be a number of at least 0")


def _refuse_other_format(model: nn.Module) -> None:
    """The file's images are float32, which weights of another format do not take."""
    kinds = [w.dtype for w in model.parameters() if w.is_floating_point()]
    if kinds and kinds[0] != torch.float32:
        kind = str(kinds[0]).removeprefix("torch.")
        raise InputError(f"model: its weights are {kind}; must be float32 (model.float())")


def _needed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"‹onnx›: needs {error.name}; install it with pip install 'refocus-vit[onnx]'"
        ) from error


def _write(logits: nn.Module, size: tuple[int, ...], file: Path) -> None:
    try:
        with warnings.catch_warnings(), torch.no_grad(), quiet("torch.onnx"):
            warnings.simplefilter("ignore")  # of torch's exporter, of its own parts
            torch.onnx.export(
                logits,
                (torch.zeros(2, *size),),
                str(file),
                input_names=[_IMAGES],
                output_names=[_LOGITS],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # what the exporter raises differs by version and operator
        raise InputError(f"‹onnx›: torch cannot export this model ({first_line(error)})") from error


def _describe(file: Path, config: dict[str, Any], names: list[str] | None) -> None:
    import onnx

    content = onnx.load(str(file))
    said = {"preprocessing": json.dumps(config), "classes": json.dumps(names)}
    onnx.helper.set_model_props(content, said)
    file.write_bytes(content.SerializeToString())


def _difference(logits: nn.Module, size: tuple[int, ...], file: Path) -> float:
    """The largest difference of the two on random images, as a share of the largest logit."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for count in _BATCHES:
        images = torch.randn(count, *size, generator=generator)
        with torch.inference_mode():
            wanted = logits(images).numpy()
        (found,) = session.run([_LOGITS], {_IMAGES: images.numpy()})
        apart = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))
        worst = float(np.maximum(worst, apart))  # NaN stays
    return worst
