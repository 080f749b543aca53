"""Settings of other libraries that are another for a while.

They are the whole process's. Threads that each put back what they found would leave one of theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")
_LOCK = Lock()
_INSIDE: dict[str, int] = {}  # setting -> how many threads want it another
_BEFORE: dict[str, object] = {}  # setting -> what it was before the first of them


@contextmanager
def meanwhile(
    what: str, now: T, get: Callable[[], T], put: Callable[[T], object]
) -> Iterator[None]:
    """A setting is `now` until the last thread has left its block; then it is what it was.

    what: the name of the setting. get, put: read and write it.
    """
    with _LOCK:
        before = _BEFORE.setdefault(what, get())
        _INSIDE[what] = _INSIDE.get(what, 0) + 1
        put(now)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE[what] -= 1
            if not _INSIDE[what]:
                put(before)  # type: ignore[arg-type]
                del _BEFORE[what]


def quiet(name: str) -> AbstractContextManager[None]:
    """Nothing below an error is logged by the logger of that name."""
    logger = logging.getLogger(name)
    level = max(logger.level, logging.ERROR)
    return meanwhile(f"logger {name}", level, lambda: logger.level, logger.setLevel)
