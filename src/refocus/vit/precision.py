"""The number format that networks compute in: float32, or bfloat16 by torch's autocast.

Only what `refocus.relevance.answers.logits_of` asks of a network is computed in it. Images, masks,
shifts and what is made of the answers stay in float32, and so do the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import nn

from refocus.errors import InputError
from refocus.vit.wrappers import unwrap

_FORMATS = ("fp32", "bf16")
_COMPUTING: ContextVar[str] = ContextVar("number format of networks", default=_FORMATS[0])


def check_precision(precision: str, device: torch.device) -> None:
    """Whether a network can compute in this format on a device.

    Raises:
        InputError: it cannot, or there is no such format.
    """
    if precision not in _FORMATS:
        raise InputError(f"‹precision› {precision}: must be {' or '.join(_FORMATS)}")
    if precision == "bf16" and not _has_bfloat16(device.type):
        raise InputError(f"‹precision› bf16: this machine's {device.type} has none; must be fp32")


def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device != "mps" or bool(torch.backends.mps.is_macos_or_newer(14, 0))


def decisive_precision(precision: str) -> dict[str, str]:
    """What a folder keeps of it, to compare when it is resumed.

    Nothing of float32, as folders of earlier versions.
    """
    return {} if precision == _FORMATS[0] else {"precision": precision}


def passes_in_autocast(model: nn.Module, device: torch.device) -> bool:
    """Whether a pass through the model is computed in torch's autocast.

    Its own, or that which accelerate has put around the model's `forward` (`tune`), beside which
    it keeps the plain one.
    """
    own = hasattr(unwrap(model), "_original_forward")
    return own or in_bfloat16() or torch.is_autocast_enabled(device.type)


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Within the `with`, this thread's networks answer in this format, "fp32" or "bf16"."""
    before = _COMPUTING.set(precision)
    try:
        yield
    finally:
        _COMPUTING.reset(before)


def in_bfloat16() -> bool:
    """Whether networks are asked to compute in bfloat16 (`computing`)."""
    return _COMPUTING.get() == "bf16"


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """In which a network is called; in float32 a caller's own autocast stays in force."""
    return torch.autocast(device.type, torch.bfloat16) if in_bfloat16() else nullcontext()
