"""How a command ends: its exit status, and the one line that says why.

0: done. 2: something in the input, which the line names; nothing was written. 1: the machine (a
full disk, no memory) or a fault of ours, which leaves a traceback. 130: Ctrl-C. 143: SIGTERM.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import typer

from refocus.errors import InputError, Message, first_line
from refocus.signals import Interrupted, asked, interruptible

MACHINE, INPUT = 1, 2
# of click, which older releases of Typer import and newer ones carry in themselves
_Usage: Any = next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException")
_NAMES = (  # what is wrong with a path that was given
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENXIO,
    errno.EINVAL,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_SAFE = "files written before are complete"
_GO_ON = "run the same command again to resume"


def run(command: Callable[[], Any]) -> int:
    """The exit status of a command, after its line on stderr where it has one."""
    try:
        with interruptible():
            return _status(command)
    except Interrupted as error:
        return _stopped(error.number)
    except KeyboardInterrupt:  # of a place that handles signals itself
        return _stopped(signal.SIGINT)


def _stopped(number: int) -> int:
    if name() != "app":  # which is ended so
        _say(f"stopped by {signal.Signals(number).name}; {_GO_ON}")
    return 128 + number


def _status(command: Callable[[], Any]) -> int:
    try:
        found = command()
    except Exception as error:
        number = asked()
        if number is not None:  # a library has made another error of it, as a broken import does
            raise Interrupted(number) from error
        told = _told(error)
        if told is None:
            raise
        status, text = told
        if text:
            _say(text)
        return status
    return found if isinstance(found, int) else 0


def _told(error: Exception) -> tuple[int, str] | None:
    """The status and the line for an error; None for a fault of ours."""
    told: tuple[int, str] | None = None
    if isinstance(error, InputError):
        told = INPUT, str(error)
    elif isinstance(error, _Usage):
        told = INPUT, _usage(error)
    elif isinstance(error, BrokenPipeError):  # `refocus models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        told = MACHINE, ""
    elif isinstance(error, OSError) and error.errno in _NAMES:
        told = INPUT, f"{error.filename}: {error.strerror}; name a path that can be used"
    elif isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # before Python 3.13
        told = INPUT, f"{error}; name a path that can be used"
    elif isinstance(error, OSError) and error.errno is not None:
        told = MACHINE, _of_the_machine(error)
    elif _out_of_memory(error):
        text = f"out of memory ({first_line(error)}); try fewer images per step; {_SAFE}"
        told = MACHINE, text
    return told


def _say(text: str) -> None:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


def _usage(error: Any) -> str:
    """What Typer has against a command line, with the nearest option and where to read more."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "refocus"
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        near = get_close_matches(error.option_name, error.possibilities or [], n=1)
        text = f"{error.option_name}: no such option"
        text += f"; did you mean {near[0]}?" if near else ""
    elif context and getattr(error, "param", None) is not None:
        lowered = error.message[:1].lower() + error.message[1:].rstrip(".")
        problem = "missing" if hasattr(error, "param_type") else lowered
        text = context.command.worded(Message(f"‹{error.param.name}›: {problem}"))
    else:
        text = error.format_message().strip().rstrip(".")
    return f"{text} (see `{where} --help`)"


def _of_the_machine(error: OSError) -> str:
    place = error.filename2 or error.filename  # of a copy, where it goes
    where = f"{place}: " if place else ""
    reason = error.strerror or first_line(error)
    if error.errno in _FULL:
        return f"{where}{reason}; {_SAFE}. Free space, then {_GO_ON}"
    if error.errno in _CLOSED:
        return f"{where}{reason}; {_SAFE}. Allow writing there, then {_GO_ON}"
    return f"{where}{reason}; {_SAFE}"


def name() -> str:
    """The command that runs."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _out_of_memory(error: Exception) -> bool:
    """PyTorch says it by a RuntimeError."""
    said = ("can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in said)
