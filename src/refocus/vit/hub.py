"""The Hugging Face Hub: asked once whether it answers, before a library asks it again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

_WAIT = 5.0  # seconds for an answer


@contextmanager
def asked_once() -> Iterator[bool]:
    """Whether the hub answers; where it does not, only what is cached is loaded within the block.

    Left alone, its library tries every file five times, with pauses that double each time.
    """
    answers, before = _answers(), constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers() -> bool:
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_WAIT)
    except Exception:  # of whichever HTTP library its version uses
        return False
    return True
