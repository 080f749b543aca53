"""What a run sets for the whole process, put back when it ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

_KINDS = (AcceleratorState, GradientState, PartialState)
_SHARED = "_shared_state"  # of all instances of a kind


@contextmanager
def put_back() -> Iterator[None]:
    """Random numbers go on where they were, and an `Accelerator` of the caller's is as before.

    A run seeds Python, numpy and torch, and needs accelerate's one state per process for itself.
    """
    shared = [getattr(kind, _SHARED) for kind in _KINDS]
    states = [dict(state) for state in shared]
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        for state, before in zip(shared, states, strict=True):
            state.clear()
            state.update(before)
