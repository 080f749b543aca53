"""What is being done, on standard error: bars on a terminal, now and then a line anywhere else.

A phase is one loop over images, steps or the like; an outline is the list of stages that phases
belong to. Imports no torch.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
EVERY = 15.0  # seconds between two lines where there is no terminal
PATIENCE = 0.8  # seconds until a command that has said nothing says that it is at work


@dataclass
class _Board:
    """What this process shows.

    bars: on a terminal, as long as one of `open` phases needs them. began: when the command, or its
    first phase, did. said: when the last line was.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    bars: Progress | None = None
    open: int = 0
    began: float | None = None
    said: float | None = None
    silent: bool = False


_BOARD = _Board()


class Phase:
    """One phase at work: `advance` it, and `note` what is worth knowing."""

    def __init__(self, label: str, total: float | None, done: float, bar: TaskID | None) -> None:
        """bar: on the terminal, None where there is none."""
        self.label, self.total, self.done = label, total, done
        self.bar, self._note = bar, ""
        self._begun, self._from = time.monotonic(), done

    def advance(self, count: float = 1) -> None:
        """So much more is done."""
        self.done += count
        self._show()

    def note(self, text: str) -> None:
        """A few words beside the count, until the next ones."""
        self._note = text
        self._show()

    def _show(self) -> None:
        with _BOARD.lock:
            if self.bar is None:
                if _due():
                    _line(str(self))
            elif _BOARD.bars is not None:
                _BOARD.bars.update(self.bar, completed=self.done, note=self._note)

    def __str__(self) -> str:
        """The phase in one line."""
        parts = [_counted(self.done, self.total), _remaining(self.left), self._note]
        return f"{self.label}: {', '.join(part for part in parts if part)}".rstrip(": ")

    @property
    def left(self) -> float | None:
        """Seconds until all is done at the rate so far; None where nothing can be said."""
        gone = self.done - self._from
        if not self.total or gone <= 0:
            return None
        return (time.monotonic() - self._begun) * (self.total - self.done) / gone


class _Unseen(Phase):
    """A phase that shows nothing."""

    def _show(self) -> None:
        return


@contextmanager
def phase(
    label: str, total: float | None = None, *, done: float = 0, shown: bool = True
) -> Iterator[Phase]:
    """A phase of work, seen while the block lasts.

    Args:
        label: what is done, such as "masks".
        total: how much there is to do; None where that is not known.
        done: how much of it was done before.
        shown: False shows nothing.
    """
    if not shown or not label or _BOARD.silent:
        yield _Unseen(label, total, done, None)
        return
    with _bars() as bars:
        bar = None
        if bars is not None:
            bar = bars.add_task(label, total=total, note="")
        opened = Phase(label, total, done, bar)
        opened.advance(0)
        try:
            yield opened
        finally:
            if bars is not None and bar is not None:
                bars.remove_task(bar)


def track(
    items: Iterable[T], label: str, total: int | None = None, *, shown: bool = True
) -> Iterator[T]:
    """The items, with a phase that counts them; `total` where they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with phase(label, total, shown=shown) as now:
        for item in items:
            yield item
            now.advance()


def say(text: str) -> None:
    """A line that stays, such as a notice; above the bars where there are some."""
    with _BOARD.lock:
        if _BOARD.bars is not None:
            _BOARD.bars.console.print(text, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
        _BOARD.said = time.monotonic()


@contextmanager
def silent(quiet: bool = True) -> Iterator[None]:
    """Within it no phase is shown."""
    before, _BOARD.silent = _BOARD.silent, quiet or _BOARD.silent
    try:
        yield
    finally:
        _BOARD.silent = before


@contextmanager
def begun(title: str) -> Iterator[None]:
    """A command that has said nothing after a second says that it is at work.

    Before that it may yet be refused in one line; importing torch alone takes some seconds.
    """
    ended = threading.Event()
    _BOARD.began, _BOARD.said = time.monotonic(), None

    def wait() -> None:
        if not ended.wait(PATIENCE) and _BOARD.said is None and not _BOARD.silent:
            say(f"{title}: starting")

    if PATIENCE < threading.TIMEOUT_MAX:
        threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


# --- stages -------------------------------------------------------------------------------------


class Outline:
    """Stages one after the other, each with the seconds that it is expected to take."""

    def __init__(self, stages: Sequence[tuple[str, float]], bars: Progress | None) -> None:
        """stages: their titles and seconds."""
        self.stages, self._bars = list(stages), bars
        self._expected = self._spent = 0.0  # seconds of the stages that are done
        self.bar: TaskID | None = None
        if bars is not None:
            total = sum(seconds for _, seconds in stages)
            self.bar = bars.add_task("", total=total, note="")

    @contextmanager
    def stage(self, number: int) -> Iterator[None]:
        """Within it the stage of this number, from 0, is done."""
        title, seconds = self.stages[number]
        left = self.expected_left(number)
        words = f"stage {number + 1} of {len(self.stages)}: {title}"
        with _BOARD.lock:
            if self._bars is not None and self.bar is not None:
                shown = _remaining(left) and f"{_remaining(left)} in all"
                self._bars.update(self.bar, description=words, note=shown)
            elif not _BOARD.silent:
                _line(f"{words}, {_remaining(left)} in all")
        started = time.monotonic()
        yield
        self._spent += time.monotonic() - started
        self._expected += seconds
        if self._bars is not None and self.bar is not None:
            self._bars.advance(self.bar, seconds)

    def expected_left(self, number: int) -> float:
        """Seconds from this stage on, by the pace of those before."""
        pace = self._spent / self._expected if self._expected else 1.0
        return pace * sum(seconds for _, seconds in self.stages[number:])


@contextmanager
def outline(stages: Sequence[tuple[str, float]]) -> Iterator[Outline]:
    """The stages of a long piece of work; phases within are shown below them."""
    if _BOARD.silent:
        yield Outline(stages, None)
        return
    with _bars() as bars:
        made = Outline(stages, bars)
        try:
            yield made
        finally:
            if bars is not None and made.bar is not None:
                bars.remove_task(made.bar)


def duration(seconds: float) -> str:
    """Seconds in words that do not promise more than they know: "40 s", "6 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- how it is shown ----------------------------------------------------------------------------


def _console() -> Console:
    return Console(stderr=True, markup=False, emoji=False)


@contextmanager
def _bars() -> Iterator[Progress | None]:
    """The bars that all phases of this process share; None where there is no terminal."""
    if not _console().is_terminal:
        yield None
        return
    with _BOARD.lock:
        if _BOARD.bars is None:
            _BOARD.bars = _started()
        _BOARD.open += 1
        _BOARD.said = time.monotonic()
        bars = _BOARD.bars
    try:
        yield bars
    finally:
        with _BOARD.lock:
            _BOARD.open -= 1
            if not _BOARD.open:
                bars.stop()
                _BOARD.bars = None


def _started() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars = Progress(*columns, console=_console(), transient=True)
    bars.start()
    return bars


def _due() -> bool:
    """Whether it is time for a line; what is over or refused within a second says none."""
    now = time.monotonic()
    _BOARD.began = now if _BOARD.began is None else _BOARD.began
    if _BOARD.said is None:
        return now - _BOARD.began >= PATIENCE
    return now - _BOARD.said >= EVERY


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    _BOARD.said = time.monotonic()


def _counted(done: float, total: float | None) -> str:
    if total is None:
        return ""
    return f"{done:g} of {total:g}"


def _remaining(seconds: float | None) -> str:
    return "" if seconds is None or seconds < 1 else f"about {duration(seconds)} left"
