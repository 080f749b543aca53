"""Files that the app keeps for a while: uploads and downloads, in folders of this user alone.

And the one rule for paths that a client names: only a file that the app itself has stored.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refocus.errors import InputError

_REFUSED = "only files that were uploaded here can be opened"


@dataclass(frozen=True)
class Store:
    """A folder of files that nobody needs for long; other users cannot read it.

    most: bytes that may lie in it. age: seconds after which a file goes.
    """

    folder: Path
    most: int = 1 << 30
    age: float = 24 * 3600.0

    def opened(self) -> Path:
        """The folder; made where it is missing, and closed to other users."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        return self.folder

    def make_room(self, needed: int = 0) -> None:
        """Remove what is too old, then the oldest files until `needed` bytes more have room."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files) + needed
        for written, size, file in files:
            if written > time.time() - self.age and total <= self.most:
                break
            file.unlink(missing_ok=True)
            total -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was written, its size, where it lies; links are not followed."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                file = Path(folder) / name
                try:
                    about = file.lstat()
                except FileNotFoundError:  # another request has just removed it
                    continue
                found.append((about.st_mtime, about.st_size, file))
        return found


def check_paths(content: Any, store: Path) -> None:
    """Refuse what an event is given where it names a file that does not lie in `store`.

    Everything with a "path" counts, at any depth and with any other content.

    Raises:
        InputError: a foreign path, a link, or anything else than a regular file.
    """
    if isinstance(content, dict):
        if content.get("path") is not None:
            _check_path(content["path"], store)
        for part in content.values():
            check_paths(part, store)
    elif isinstance(content, list | tuple):
        for part in content:
            check_paths(part, store)


def _check_path(path: Any, store: Path) -> None:
    if not isinstance(path, str):
        raise InputError(_REFUSED)
    try:
        own = (
            stat.S_ISREG(os.lstat(path).st_mode)  # before anything opens it: a FIFO blocks
            and Path(path).resolve(strict=True).is_relative_to(store.resolve())
        )
    except (OSError, ValueError, RuntimeError):  # no such file, a NUL, a circle of links
        own = False
    if not own:
        raise InputError(_REFUSED)
