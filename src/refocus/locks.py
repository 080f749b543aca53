"""One process writes into a folder at a time: a lock that names its holder, kept until released.

The lock is the operating system's (`flock`), so it ends with its process, and NFS keeps it between
machines. Where a file system has none, the file itself is the lock; it is taken over from a dead
process of this machine, and one of another machine has to be removed by hand.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from refocus.errors import InputError

try:
    import fcntl
except ImportError:  # no flock on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".refocus-lock"
_POLL = 0.5  # seconds between two looks at a lock that another process holds
_HELD: dict[Path, tuple[int, int]] = {}  # lock file -> its descriptor, the process that took it


def hold(folder: Path) -> None:
    """Take the lock of a folder for this process, which may take it again.

    Raises:
        InputError: another process holds it; names the process and its machine.
    """
    file = folder.resolve() / LOCK
    if _mine(file):
        return
    for _attempt in range(10):
        try:
            descriptor = _taken(file)
        except FileExistsError as error:
            holder = _holder(file)
            if not _dead(holder):
                left = f", or remove {file} where no such command runs" if error.errno else ""
                raise InputError(
                    f"{folder}: {_words(holder)} is writing here; wait until it has ended, or name "
                    f"another folder{left}"
                ) from None
            file.unlink(missing_ok=True)
            continue
        if descriptor is not None:
            _HELD[file] = (descriptor, os.getpid())
            return
    raise InputError(f"{folder}: other processes keep taking its lock ({file}); try again")


def is_free(folder: Path) -> bool:
    """Take a folder's lock if no other process holds it; whether it is ours now."""
    try:
        hold(folder)
    except InputError:
        return False
    return True


@contextlib.contextmanager
def waited(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, once no other process does; for what takes seconds."""
    while not is_free(folder):
        time.sleep(_POLL)
    with released(folder):
        yield


def release(folder: Path) -> None:
    """Give a folder's lock back; nothing where this process does not hold it."""
    file = folder.resolve() / LOCK
    if _mine(file):
        descriptor, _ = _HELD.pop(file)
        if fcntl is None:  # Windows removes no file that is open
            os.close(descriptor)
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)  # while it is still locked, so that nobody loses another's
        if fcntl is not None:
            os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove the lock that a killed process left in a complete folder, which is only read."""
    if (folder / LOCK).exists():
        with contextlib.suppress(OSError):  # a disk that can only be read
            if is_free(folder):
                release(folder)


@contextlib.contextmanager
def released(folder: Path) -> Iterator[None]:
    """Give a folder's lock back at the end, also after an error."""
    try:
        yield
    finally:
        release(folder)


def _mine(file: Path) -> bool:
    """Whether this very process took it; a forked worker inherits the table, not the right."""
    return file in _HELD and _HELD[file][1] == os.getpid()


def _taken(file: Path) -> int | None:
    """The descriptor of a lock that is ours now; None where its file was replaced meanwhile.

    Raises:
        FileExistsError: somebody else holds it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        if fcntl is None or not _flocked(descriptor):
            os.close(descriptor)
            descriptor = _exclusive(file)
        elif not _same(descriptor, file):
            os.close(descriptor)
            return None
        mine = {"process": os.getpid(), "host": platform.node(), "since": int(time.time())}
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(mine).encode())  # Windows has no pwrite
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    return descriptor


def _flocked(descriptor: int) -> bool:
    """Whether the file system's lock is ours; False where it has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileExistsError from error
    except OSError:
        return False
    return True


def _exclusive(file: Path) -> int:
    """Without flock: the file that was just opened is ours if it is empty, else its writer's."""
    if file.stat().st_size:  # its holder may have ended, and another process have its number
        raise FileExistsError(errno.EEXIST, "a lock without flock", str(file))
    try:
        file.unlink()
    except PermissionError as error:  # Windows: its writer has it open and is about to write
        raise FileExistsError from error
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)


def _same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _holder(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is being written, or gone
        return {}
    return found if isinstance(found, dict) else {}


def _dead(holder: dict[str, object]) -> bool:
    """Whether the holder was a process of this machine that has ended.

    A child that it left behind may keep its lock for a while.
    """
    process = holder.get("process")
    if holder.get("host") != platform.node() or not isinstance(process, int):
        return False
    import psutil  # on Windows os.kill would send Ctrl-C even where it only asks

    return not psutil.pid_exists(process)


def _words(holder: dict[str, object]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('process')} on {holder.get('host')}"


@atexit.register
def _release_all() -> None:
    for file in list(_HELD):
        release(file.parent)
