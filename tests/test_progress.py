"""What a reader sees of work that takes long: bars on a terminal, whole lines anywhere else."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from refocus import progress


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line at once."""
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(progress._BOARD, "said", None)
    monkeypatch.setattr(progress._BOARD, "began", None)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "_console", lambda: console)
    return shown


@pytest.mark.usefixtures("eager")
def test_a_pipe_gets_whole_lines_and_no_blank_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track("abc", "masks")) == ["a", "b", "c"]
    with progress.phase("tuning", 10, done=4) as bar:
        bar.advance()
        bar.note("loss 0.5")
    said = capsys.readouterr().err.splitlines()
    assert all(said)
    assert [line.split(", about")[0] for line in said] == [
        *(f"masks: {done} of 3" for done in range(4)),
        "tuning: 4 of 10",
        "tuning: 5 of 10",
        "tuning: 5 of 10, loss 0.5",
    ]


def test_lines_come_after_some_time_and_not_more_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "PATIENCE", 1)
    monkeypatch.setattr(progress._BOARD, "said", None)
    monkeypatch.setattr(progress._BOARD, "began", None)
    with progress.phase("masks", 100) as bar:
        for _ in range(50):
            now += 0.5
            bar.advance()
    said = capsys.readouterr().err.splitlines()
    assert said == ["masks: 2 of 100, about 49 s left", "masks: 32 of 100, about 34 s left"]


@pytest.mark.usefixtures("eager")
def test_what_is_switched_off_is_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.silent():
        list(progress.track("abc", "masks"))
        with progress.outline([("audit", 9.0)]) as outline, outline.stage(0):
            pass
    list(progress.track("abc", "masks", shown=False))
    list(progress.track("abc", ""))
    assert capsys.readouterr().err == ""


def test_a_command_says_within_two_seconds_that_it_is_at_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with progress.begun("refocus masks"):
        pass  # as one that is refused
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with progress.begun("refocus masks"):
        _wait_for_a_line()
    assert capsys.readouterr().err == "refocus masks: starting\n"


def _wait_for_a_line() -> None:
    end = time.monotonic() + 30
    while progress._BOARD.said is None and time.monotonic() < end:
        time.sleep(0.01)


def test_patience_leaves_the_first_line_within_two_seconds() -> None:
    source = progress.__file__
    with open(source, encoding="utf-8") as file:
        (found,) = re.findall(r"^PATIENCE = ([\d.]+)", file.read(), re.M)
    assert float(found) <= 1.5  # beside the time in which Python starts


def test_a_terminal_gets_bars_and_notices_above_them(terminal: io.StringIO) -> None:
    with progress.phase("[masks]", 4) as bar:
        bar.advance(2)
        progress.say("left out: a.png")
        with progress.phase("inside", 2):  # a phase in a phase has a bar below
            pass
    shown = terminal.getvalue()
    assert "[masks]" in shown
    assert "left out: a.png\n" in shown
    assert progress._BOARD.bars is None  # the terminal is given back


def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "_console", lambda: console)
    with progress.phase("masks", 4) as bar:
        bar.advance(2)
    assert "masks" in shown.getvalue()
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|38;|9[0-7])[\d;]*m", shown.getvalue())


@pytest.mark.usefixtures("eager")
def test_stages_say_what_is_left_by_the_pace_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.outline([("audit", 60.0), ("tune", 120.0)]) as outline:
        with outline.stage(0):
            now += 180  # three times as long as expected
        with outline.stage(1):
            pass
    assert capsys.readouterr().err.splitlines() == [
        "stage 1 of 2: audit, about 3 min left in all",
        "stage 2 of 2: tune, about 6 min left in all",
    ]


def test_stages_stand_above_their_phases_on_a_terminal(terminal: io.StringIO) -> None:
    stages = [("audit", 60.0), ("tune", 120.0)]
    with progress.outline(stages) as outline, outline.stage(1), progress.phase("steps", 5) as bar:
        bar.advance()
        progress.say("a notice")
    shown = terminal.getvalue()
    assert "stage 2 of 2: tune" in shown
    assert shown.rindex("stage 2 of 2") < shown.rindex("steps")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (80, "80 s"), (100, "2 min"), (9000, "2.5 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
