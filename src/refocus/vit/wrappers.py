"""What torch and PEFT wrap around a model, and the model inside."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside what torch and PEFT wrap around one.

    These are `torch.compile`, `DataParallel`, `DistributedDataParallel`, and PEFT's adapters, which
    stay active: they are layers of the model inside.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def runnable(model: nn.Module) -> nn.Module:
    """What a pass goes through: the model inside, but for a `DistributedDataParallel` around it.

    That one brings the gradients of several processes together. `DataParallel` would run the pass
    in threads of its own, where nothing is recorded.
    """
    while not isinstance(model, DistributedDataParallel):
        inner = _inside(model)
        if inner is None:
            break
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    """One wrapper less; None for a model as it is."""
    wrapper: Any = model
    inner: nn.Module | None = None
    if isinstance(model, DataParallel | DistributedDataParallel):
        inner = wrapper.module
    elif type(model).__name__ == "OptimizedModule":  # of torch.compile
        inner = model.get_submodule("_orig_mod")
    elif type(model).__module__.partition(".")[0] == "peft" and hasattr(model, "get_base_model"):
        inner = wrapper.get_base_model()
    return inner
