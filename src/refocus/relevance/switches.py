"""What is switched on a model while its maps are recorded, and switched back at the end.

A model is recorded by one thread at a time; others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from refocus.vit.wrappers import unwrap

_LOCKS: WeakKeyDictionary[nn.Module, AbstractContextManager[bool]] = WeakKeyDictionary()


def exclusive(model: nn.Module) -> AbstractContextManager[bool]:
    """A lock for what is switched on a model and switched back.

    Two threads that do so in turns would leave it switched.
    """
    return _LOCKS.setdefault(unwrap(model), threading.RLock())


def mine(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook on a module that other threads use as well: it acts only on this thread's passes."""
    owner = threading.get_ident()
    return lambda *args: hook(*args) if threading.get_ident() == owner else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode within; each of its modules is left in the mode that it was in."""
    with exclusive(model):
        modes = {module: module.training for module in model.modules()}
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def alone(model: nn.Module, filled: list[Any]) -> Iterator[None]:
    """This thread's passes through the model, with plain attention; each empties the list first."""
    with exclusive(model), _plain_attention(model), _Eager():
        handle = model.register_forward_pre_hook(mine(lambda *_: filled.clear()))
        try:
            yield
        finally:
            handle.remove()


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


_SWITCHES = {"fused_attn": True, "grad_checkpointing": False, "gradient_checkpointing": False}
_KIND = "_attn_implementation"  # of transformers' configurations; "sdpa" calls torch's function


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Every layer calls torch's function, at once."""
    layers = [
        (m, name, getattr(m, name))
        for m in model.modules()
        for name in _SWITCHES
        if name in vars(m)
    ]
    configs = list(
        {
            id(c): c for m in model.modules() for c in _with_parts(getattr(m, "config", None))
        }.values()
    )
    kinds = [getattr(config, _KIND) for config in configs]
    try:
        for module, name, _ in layers:
            setattr(module, name, _SWITCHES[name])
        for config in configs:
            setattr(config, _KIND, "sdpa")
        yield
    finally:
        for module, name, value in layers:
            setattr(module, name, value)
        for config, kind in zip(configs, kinds, strict=True):
            setattr(config, _KIND, kind)


def _with_parts(config: Any) -> list[Any]:
    """A configuration of transformers before those inside of it, which setting it sets too."""
    if not hasattr(config, _KIND):
        return []
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return [config, *(inner for part in parts for inner in _with_parts(part))]
