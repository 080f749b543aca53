"""Which files of a folder are images, and which are passed over, with one notice that counts them.

Hidden files of systems and tools are no content. Everything else that is not read is counted.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from refocus.errors import InputError
from refocus.vit.classes import plain

log = logging.getLogger("refocus")

_HEIF = (".heic", ".heif", ".hif")


def _plugged_in() -> tuple[str, ...]:
    """Endings of HEIC, as phones write it, where Pillow's plug-in for it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.register_heif_opener()
    return _HEIF


PLUGGED_IN = _plugged_in()
# by name; the content decides how a file is read
EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
    ".jp2",
    ".mpo",
    *PLUGGED_IN,
)
_SYSTEM = frozenset(  # of macOS, Windows, Synology, QNAP and Linux, beside names with a dot
    (
        "__macosx",
        "@eadir",
        "@tmp",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    )
)


@dataclass(frozen=True)
class Listing:
    """What lies in a folder.

    images: regular files with an image's extension, sorted. folders: sorted. left_out: reason ->
    how many files.
    """

    images: tuple[Path, ...]
    folders: tuple[Path, ...]
    left_out: Counter[str]


def hidden(path: Path) -> bool:
    """Whether a name is that of a hidden file, or of what a system or a NAS leaves in folders."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM


def there(path: Path) -> bool:
    """Whether a path that somebody's file names is a regular file; one that cannot be is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or of characters that no path may have
        return False


def listing(folder: Path, parameter: str) -> Listing:
    """Look into one folder, not below it.

    Raises:
        InputError: no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"‹{parameter}› {folder}: no such folder")
    try:
        inside = sorted(p for p in folder.iterdir() if not hidden(p))
    except OSError as error:
        raise InputError(f"‹{parameter}› {folder}: cannot be read ({error.strerror})") from error
    images, folders, left_out = [], [], Counter[str]()
    for path in inside:
        if path.is_dir():
            folders.append(path)
        elif not path.is_file():
            left_out["broken links" if path.is_symlink() else "not regular files"] += 1
        elif path.suffix.lower() not in EXTENSIONS:
            left_out[_unread(path)] += 1
        else:
            images.append(path)
    return Listing(tuple(images), tuple(folders), left_out)


def _unread(path: Path) -> str:
    """Why a file is none of the images."""
    ending = path.suffix.lower()
    if ending in _HEIF:
        return f"{ending} (needs pillow-heif: pip install 'refocus-vit[heic]')"
    return ending or "without extension"


def say_left_out(root: Path, counts: Iterable[Counter[str]]) -> None:
    """One notice of how many files were passed over, by reason."""
    if total := sum(counts, Counter[str]()):
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(total.items()))
        log.info("%s: %d files are left out (%s)", root, total.total(), reasons)


def holds_images(folder: Path) -> bool:
    """Whether there is an image anywhere below a folder."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not hidden(Path(name))]
        if any(
            Path(name).suffix.lower() in EXTENSIONS and Path(place, name).is_file()
            for name in files
            if not hidden(Path(name))
        ):
            return True
    return False


def images_below(folder: Path, parameter: str) -> list[Path]:
    """All images at any depth below a folder, sorted."""
    found: list[Path] = []
    counts: list[Counter[str]] = []
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back up
            continue
        seen.add((status.st_dev, status.st_ino))
        inside = listing(place, parameter)
        found += inside.images
        counts.append(inside.left_out)
        waiting += inside.folders
    say_left_out(folder, counts)
    return sorted(found)


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Stem, as it is compared -> file.

    Raises:
        InputError: two files of one stem.
    """
    found: dict[str, Path] = {}
    for file in files:
        key = plain(file.stem)
        if key in found:
            raise InputError(
                f"{found[key]} and {file.name}: are two masks with the same name; remove one"
            )
        found[key] = file
    return found
