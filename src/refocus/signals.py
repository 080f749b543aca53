"""Ctrl-C and SIGTERM: they end a command where it stands, but never in the middle of a record.

A library may swallow the exception that a signal raises (Python itself drops one that is raised in
a destructor), so a signal is raised again until the command really ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 2.0  # seconds until a signal that was swallowed is raised once more
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
Hook = Callable[["sys.UnraisableHookArgs"], object]


class Interrupted(BaseException):
    """A signal asked this process to end; `number` says which.

    It is no KeyboardInterrupt, which libraries turn into an end of their own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    """owner: the process that handles signals; a forked worker inherits the handlers, not the task.

    asked: the signal that came and has not ended the command yet. holds: how many blocks of
    `uninterrupted` are open.
    """

    owner = 0
    asked: int | None = None
    holds = 0


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, SIGINT and SIGTERM raise `Interrupted` in the main thread.

    Again and again until the block is left.
    """
    if threading.current_thread() is not threading.main_thread():  # no signals can be handled here
        yield
        return
    watched = (*_NUMBERS, signal.SIGALRM) if hasattr(signal, "SIGALRM") else _NUMBERS
    before = {number: signal.getsignal(number) for number in watched}
    said, sys.unraisablehook = sys.unraisablehook, _quiet(sys.unraisablehook)
    _State.owner, _State.asked, _State.holds = os.getpid(), None, 0
    for number in watched:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        _rest()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = said


def _quiet(say: Hook) -> Hook:
    """Python's report of exceptions that it drops, without ours, which is raised again."""

    def hook(dropped: sys.UnraisableHookArgs, /) -> None:
        if not issubclass(dropped.exc_type, Interrupted):
            say(dropped)

    return hook


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What is written within it is written whole; a signal that comes meanwhile counts after it."""
    _State.holds += 1
    try:
        yield
    finally:
        _State.holds -= 1
    if _State.asked is not None and not _State.holds:
        raise Interrupted(_State.asked)


def asked() -> int | None:
    """The signal that asked this process to end and has not ended it yet."""
    return _State.asked


def _handle(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _State.owner:  # a worker: Ctrl-C is its parent's matter, SIGTERM ends it
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    if number in _NUMBERS:
        _State.asked = number
    if _State.asked is None:
        return
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    if not _State.holds:
        raise Interrupted(_State.asked)


def _rest() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    _State.asked = None
