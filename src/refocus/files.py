"""Files that appear whole or not at all, and that are read with a limit."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec

from refocus.errors import InputError, first_line
from refocus.records import decode

PARTIAL = ".refocus-partial-"  # start of the names of files that are being written
_MOST = 1 << 28  # bytes of a JSON file that refocus writes, with room to spare
_TEXT = 1 << 26  # bytes of a text file
_SPACE = re.compile("No space left|File too large|Disk quota|write failed|failed writing", re.I)


def of_the_disk(error: OSError) -> bool:
    """Whether the disk, and not the path that was given, is what an error is about."""
    return error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; then `path` is either as before or whole.

    Raises:
        OSError: the disk is full, or cannot be written; names `path`.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{token_hex(4)}")
    try:
        with naming(path):
            yield partial
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is written within it belongs to `path`: an error of the disk names that.

    Raises:
        OSError: the disk is full, or cannot be written; torch and safetensors say so in errors of
            their own.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise
    except Exception as error:
        if _SPACE.search(str(error)):
            raise OSError(errno.ENOSPC, first_line(error), str(path)) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is either absent or whole, whenever the process dies."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; what UTF-8 cannot hold becomes a question mark."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, most: int = _MOST) -> Any:
    """What a JSON file holds; the caller checks its shape (`records.from_json`).

    Raises:
        InputError: not there, no regular file, larger than `most` bytes, not UTF-8, or no JSON,
            such as a NaN or what is nested a thousand levels deep.
    """
    try:
        return decode(read_bytes(path, most).removeprefix(codecs.BOM_UTF8))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: is not there; run the command that writes it again, or name another"
        ) from error
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file ({first_line(error)})") from error


def read_text(path: Path, *, most: int = _TEXT) -> str:
    """A regular file's text, in UTF-8 with or without its mark.

    Raises:
        OSError, ValueError: as `read_bytes`, or it is no UTF-8.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def read_bytes(path: Path, most: int) -> bytes:
    """A regular file's content: a pipe would wait for ever, and /dev/zero does not end.

    Raises:
        OSError: it is none, or cannot be read.
        ValueError: it is larger than `most` bytes.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > most:
        raise ValueError(f"{status.st_size >> 20} MB; must be at most {most >> 20}")
    return path.read_bytes()
