"""Signals end a command, but not in the middle of what must be written whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from refocus import signals
from refocus.signals import Interrupted, interruptible, uninterrupted


def test_what_must_be_whole_is_finished_first() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")

    with interruptible(), pytest.raises(Interrupted):
        work()
    assert done == ["inner", "outer"]


def test_without_a_handler_nothing_is_held_back() -> None:
    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

    # a worker of pytest-xdist ignores Ctrl-C, and would wait here for ever
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_forked_worker_does_not_answer_for_its_parent() -> None:
    with interruptible():
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGINT)  # of the terminal, to the whole group
            os.kill(os.getpid(), signal.SIGTERM)  # of the parent
            os._exit(7)
        _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_signal_in_a_destructor_is_raised_again_and_says_nothing_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python drops it there, and would print a traceback into the command's output."""
    said: list[type[BaseException]] = []
    monkeypatch.setattr("sys.unraisablehook", lambda dropped: said.append(dropped.exc_type))
    monkeypatch.setattr(signals, "_AGAIN", 0.05)

    class Falling:
        def __init__(self, fall: Callable[[], object]) -> None:
            self.fall = fall

        def __del__(self) -> None:
            self.fall()

    reached = []

    def work() -> None:
        Falling(lambda: os.kill(os.getpid(), signal.SIGTERM))
        Falling(lambda: 1 / 0)
        reached.append("after")
        time.sleep(5)

    with interruptible(), pytest.raises(Interrupted):
        work()
    assert reached == ["after"]
    assert said == [ZeroDivisionError]  # of others' it still tells
