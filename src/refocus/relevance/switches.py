"""What is switched on a model while its maps are recorded, and switched back at the end.

A model is recorded by one thread at a time; others wait.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from refocus.vit.attention_kinds import KIND, configurations, refuse_registered
from refocus.vit.views import unsupported
from refocus.vit.wrappers import unwrap

T = TypeVar("T")
_LOCKS: WeakKeyDictionary[nn.Module, AbstractContextManager[bool]] = WeakKeyDictionary()


def exclusive(model: nn.Module) -> AbstractContextManager[bool]:
    """A lock for what is switched on a model and switched back.

    Two threads that do so in turns would leave it switched.
    """
    return _LOCKS.setdefault(unwrap(model), threading.RLock())


def mine(hook: Callable[..., T]) -> Callable[..., T | None]:
    """A hook on a module that other threads use as well: it acts only on this thread's passes."""
    owner = threading.get_ident()
    return lambda *args: hook(*args) if threading.get_ident() == owner else None


class _Recordings(threading.local):
    """Of this thread: the models that are recorded, and the lists that are filled."""

    def __init__(self) -> None:
        self.open: list[tuple[nn.Module, list[Any]]] = []


_RECORDINGS = _Recordings()


def innermost(model: nn.Module, filled: list[Any]) -> bool:
    """Whether this list is filled by a pass through the model, and not one of a `with` inside."""
    return [each for recorded, each in _RECORDINGS.open if recorded is model][-1] is filled


@contextmanager
def alone(model: nn.Module, filled: list[Any], *, fused: bool = True) -> Iterator[None]:
    """This thread's passes through the model, with plain attention; each empties the list first.

    fused: whether its layers call torch's attention, where they have that choice, or form maps.

    Raises:
        InputError: a layer that computes something else when it calls torch's attention.
    """

    def empty(*_: object) -> None:
        if innermost(model, filled):
            filled.clear()

    with exclusive(model), _plain_attention(model, fused), _Eager():
        handle = model.register_forward_pre_hook(mine(empty))
        _RECORDINGS.open.append((model, filled))
        try:
            yield
        finally:
            _RECORDINGS.open.pop()
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; the mode of each part is restored after."""
    with exclusive(model):
        modes = {module: module.training for module in model.modules()}
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


class _Eager:
    """Within the `with`, compiled modules run as written; compiled code calls none of our hooks.

    torch keeps one switch for all threads: the first one in turns it, the last one out turns it
    back.
    """

    _lock, _inside = threading.Lock(), 0
    _stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if _Eager._inside == 0:
                _Eager._stance = torch.compiler.set_stance("force_eager")
                _Eager._stance.__enter__()
            _Eager._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            _Eager._inside -= 1
            if _Eager._inside == 0:
                _Eager._stance.__exit__(*error)


_FUSED = "fused_attn"  # of timm's layers
_OFF = ("grad_checkpointing", "gradient_checkpointing")


@contextmanager
def _plain_attention(model: nn.Module, fused: bool) -> Iterator[None]:
    """Every layer calls torch's function, at once; or none of timm's does, without `fused`."""
    wanted = {_FUSED: fused, **dict.fromkeys(_OFF, False)}
    layers = [
        (m, name, getattr(m, name)) for m in model.modules() for name in wanted if name in vars(m)
    ]
    if fused:
        _refuse_scaled(model)
    refuse_registered(model)
    configs = configurations(model)
    kinds = [getattr(config, KIND) for config in configs]
    try:
        for module, name, _ in layers:
            setattr(module, name, wanted[name])
        for config in configs:
            setattr(config, KIND, "sdpa")  # calls torch's function
        yield
    finally:
        for module, name, value in layers:
            setattr(module, name, value)
        for config, kind in zip(configs, kinds, strict=True):
            setattr(config, KIND, kind)


def _refuse_scaled(model: nn.Module) -> None:
    """Stop at a layer whose own scale counts only while it does not call torch's function."""
    for name, layer in model.named_modules():
        scale, width = (getattr(layer, each, None) for each in ("scale", "head_dim"))
        off = vars(layer).get(_FUSED) is False
        if not (off and isinstance(scale, float) and isinstance(width, int)):
            continue
        if not math.isclose(scale, width**-0.5, rel_tol=1e-6):
            raise unsupported(
                model,
                f"{name}.scale is {scale:g} in place of {width**-0.5:g}, which torch's attention "
                "takes; multiply the weights of its query by the difference",
            )
