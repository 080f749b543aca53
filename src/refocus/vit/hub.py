"""The Hugging Face Hub: asked once whether it answers, before a library asks it again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from refocus.errors import InputError, first_line
from refocus.vit.meanwhile import meanwhile

_WAIT = 5.0  # seconds for an answer
_FAULTS = (AssertionError, AttributeError, LookupError, NameError, TypeError)  # of code, not a hub


@contextmanager
def asked_once() -> Iterator[bool]:
    """Whether the hub answers; where it does not, only what is cached is loaded within the block.

    Left alone, its library tries every file five times, with pauses that double each time.
    """
    answers = _answers()
    with nullcontext() if answers else _offline():
        yield answers


def _offline() -> AbstractContextManager[None]:
    def put(value: bool) -> None:
        constants.HF_HUB_OFFLINE = value

    return meanwhile("offline", True, lambda: constants.HF_HUB_OFFLINE, put)


@contextmanager
def in_one_line(shown: str) -> Iterator[None]:
    """Say in one line what goes wrong with the Hub within the block.

    shown: the parameter and its value, for the message.

    Raises:
        InputError: the Hub cannot be reached, or it refuses.
    """
    try:
        yield
    except _FAULTS:
        raise
    except Exception as error:  # of whichever HTTP library its version uses
        answered = isinstance(error, (HfHubHTTPError, LocalTokenNotFoundError, ValueError))
        said = "the Hub refused" if answered else "the Hub cannot be reached"
        raise InputError(f"{shown}: {said} ({first_line(error)})") from error


def _answers() -> bool:
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_WAIT)
    except Exception:  # of whichever HTTP library its version uses
        return False
    return True
