"""How a command ends: one line and a documented status, whatever happened."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from refocus import InputError
from refocus.cli import ending
from refocus.signals import Interrupted
from tests.makers import run


def _raises(error: BaseException) -> int:
    def command() -> None:
        raise error

    return ending.run(command)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("‹out› x:\n exists"), 2, "error: out x: exists"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 1, "/a/b: No space left"),
        (OSError(errno.ENOSPC, "No space", "/source", None, "/target"), 1, ": /target: No space"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), 1, "/a/b: Read-only"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error; files written"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xxx"), 2, "xxx: File name too long"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b: Not a directory"),
        (RuntimeError("Symlink loop from '/a'"), 2, "Symlink loop from '/a'"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM"),
    ],
)
def test_one_line_and_a_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _raises(error) == status
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown
    assert shown.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        _raises(ZeroDivisionError())
    with pytest.raises(RuntimeError, match="shape"):
        _raises(RuntimeError("a shape is wrong"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "No such command 'frobnicate' (see `refocus --help`)"),
        (("tune", "--modle", "x"), "--modle: no such option; did you mean --model?"),
        (("tune", "--epochs", "many"), "--epochs: input should be a valid integer"),
        (("evaluate",), "--on: missing (see `refocus evaluate --help`)"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "report", "explain", "shifts", "zero-shot"])
def test_what_cannot_be_split_refuses_torchrun(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(monkeypatch, command) == 2
    assert "cannot be split by torchrun" in capsys.readouterr().err


def test_a_world_size_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert run(monkeypatch, "masks", "x", "--out", "y") == 2
    assert "WORLD_SIZE='two'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_swallows_comes_again(number: int, status: int) -> None:
    swallowed = []

    def command() -> None:
        while True:
            try:
                os.kill(os.getpid(), number) if not swallowed else signal.pause()
            except BaseException as error:
                swallowed.append(error)
                if len(swallowed) == 3:
                    raise

    before = signal.getsignal(number)
    assert ending.run(command) == status
    assert len(swallowed) == 3
    assert signal.getsignal(number) is before


def test_a_signal_that_a_library_makes_another_error_of_is_still_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except BaseException as error:
            raise ImportError("initialization failed") from error  # as a module in C does

    assert ending.run(command) == 143
    assert "error: stopped by SIGTERM; " in capsys.readouterr().err
