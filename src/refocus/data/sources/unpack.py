"""A source -> class folders in a cache, made once for each state of its content."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex

from PIL import Image

from refocus.data.images import UNREADABLE
from refocus.data.listing import EXTENSIONS, hidden, there
from refocus.data.sources.rows import HUB, Asked, LeftOut, Row, Source, Stated
from refocus.errors import InputError, Message
from refocus.files import read_json, write_json, write_text
from refocus.records import from_json, to_json
from refocus.vit.classes import plain

log = logging.getLogger("refocus")

CACHE = "REFOCUS_CACHE"  # the environment variable that names another folder than ~/.cache/refocus
_RULES = 5  # raised where the same source comes to be read as other images or classes
_ORIGINS = "origins.json"  # CLASS/FILE -> the path by which the source knows an image
_MADE = "source.json"  # written last: the folder is whole
_ENDINGS = {"JPEG": ".jpg", "TIFF": ".tif", "HEIF": ".heic", "JPEG2000": ".jp2", "PPM": ".ppm"}
_WINDOWS = '<>:"|?*'  # what no name may hold there


def cache() -> Path:
    """The folder in which sources are unpacked; it may be deleted whenever nothing runs."""
    named = os.environ.get(CACHE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "refocus"


def unpacked(source: Source, asked: Asked) -> Path:
    """The folder of a source: images/CLASS/FILE, and masks/CLASS/STEM and groups.csv if there are.

    Files are linked to where they lie; what lies in an archive or a data set is written out.

    Raises:
        InputError: it holds no image, or a label that no folder can be called by.
    """
    columns = sorted(asked.columns.items())
    said = (_RULES, _absolute(asked), *source.state, source.split, asked.config, columns)
    key = blake2b(repr(said).encode(), digest_size=6)
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(asked.place).stem)[:40]
    folder = cache() / "sources" / f"{stem.strip('-') or 'source'}-{key.hexdigest()}"
    if not (folder / _MADE).exists():
        _make(source, asked, folder)
    found = from_json(read_json(folder / _MADE), _Made, folder / _MADE)
    log.info(Message(f"{asked.shown}: {found.what}; read as {folder}"))
    return folder


def origin_of(image: Path) -> str | None:
    """The path by which its source knows an image of unpacked class folders; None for others.

    In the class folders it may have another name: `b/1.jpg` is `1-2.jpg` beside `a/1.jpg`.
    """
    root = image.parent.parent
    return _origins(root.parent).get(f"{image.parent.name}/{image.name}")


@lru_cache(maxsize=16)
def _origins(folder: Path) -> dict[str, str]:
    if not (folder / _MADE).is_file() or not (folder / _ORIGINS).is_file():
        return {}
    try:
        return from_json(read_json(folder / _ORIGINS, most=1 << 31), dict[str, str], _ORIGINS)
    except InputError:  # a file of the user's own
        return {}


def _absolute(asked: Asked) -> str:
    """What names a source from anywhere; a hub's data set may be a folder as well."""
    hub = asked.place.startswith(HUB)
    path = Path(asked.place.removeprefix(HUB)).expanduser()
    return asked.place if hub and not path.exists() else str(path.resolve())


def _make(source: Source, asked: Asked, folder: Path) -> None:
    """Write beside `folder` and rename: of several processes the first one wins."""
    partial = folder.with_name(f".{folder.name}-{os.getpid()}-{token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        found = _written(source, asked, partial)
        write_json(partial / _MADE, to_json(found))
        with contextlib.suppress(OSError):  # another process was first
            os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class _Made:
    """source.json: what the user named, what it was found to be, its classes in its own order."""

    given: str
    what: str
    classes: tuple[str, ...] = ()


def stated_classes(images: Path) -> tuple[str, ...]:
    """The classes of unpacked class folders, in the order of the numbers that their source gives.

    Empty for other folders, and where the source has no numbers.
    """
    file = images.parent / _MADE
    try:
        return from_json(read_json(file), _Made, file).classes if file.is_file() else ()
    except InputError:  # a file of the user's own
        return ()


def _written(source: Source, asked: Asked, folder: Path) -> _Made:
    writer = _Writer(folder, asked.shown)
    classes: tuple[str, ...] = ()
    for row in source.rows():
        if isinstance(row, Stated):
            classes = tuple(plain(name.strip()) for name in row.names)
        elif isinstance(row, LeftOut):
            writer.left_out[row.reason] += 1
        else:
            writer.write(row)
    if not writer.count:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(writer.left_out.items()))
        raise InputError(f"{asked.shown}: {source.what} without a usable image ({reasons or '0'})")
    if writer.groups:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([("image", "group"), *writer.groups])
        write_text(folder / "groups.csv", text.getvalue())
    write_json(folder / _ORIGINS, writer.origins)
    return _Made(asked.place, writer.words(source.what), classes)


class _Writer:
    """Puts rows into class folders."""

    def __init__(self, folder: Path, shown: str) -> None:
        self.folder, self.shown = folder, shown
        self.stems: dict[str, set[str]] = {}  # class -> stems taken
        self.seen: dict[Path, tuple[str, str, str]] = {}  # file -> its label, group and mask
        self.groups: list[tuple[str, str]] = []
        self.origins: dict[str, str] = {}  # CLASS/FILE -> path
        self.left_out: Counter[str] = Counter()
        self.count = self.masks = 0

    def write(self, row: Row) -> None:
        for file in (row.image, row.mask):
            if isinstance(file, Path) and not there(file):
                raise InputError(f"{self.shown}: names {file}, which is no file")
        label = plain(row.label.strip())
        ending = _ending(row)
        if ending is None:
            self.left_out["not an image"] += 1
            return
        if self._listed_before(row, label):
            self.left_out["listed more than once"] += 1
            return
        if label not in self.stems:
            self._class_folder(label)
        name = f"{self._free(label, row.name)}{ending}"
        _put(row.image, self.folder / "images" / label / name)
        self.count += 1
        origin = os.path.abspath(row.image) if isinstance(row.image, Path) else row.origin
        if origin:
            self.origins[f"{label}/{name}"] = origin
        if row.mask is not None:
            self._mask(row.mask, label, Path(name).stem)
        if row.group:
            self.groups.append((f"{label}/{name}", row.group))

    def _listed_before(self, row: Row, label: str) -> bool:
        """Whether a file was listed already; with another label, group or mask it is refused."""
        if isinstance(row.image, bytes):
            return False
        mask = row.mask.resolve() if isinstance(row.mask, Path) else row.mask and "another one"
        file, now = row.image.resolve(), (label, row.group, str(mask or ""))
        before = self.seen.get(file)
        if before is None:
            self.seen[file] = now
            return False
        for what, one, other in zip(("label", "group", "mask"), before, now, strict=True):
            if one != other:
                raise InputError(
                    f"{self.shown}: lists {row.image} with the {what} {one!r} and again with "
                    f"{other!r}; must have one {what} for each image"
                )
        return True

    def _class_folder(self, label: str) -> None:
        odd = "/\\\0" + (_WINDOWS if os.name == "nt" else "")
        legal = label and label not in (".", "..") and not hidden(Path(label))
        if not legal or any(c in label for c in odd) or len(os.fsencode(label)) > 255:
            raise InputError(f"{self.shown}: the label {label!r} cannot be the name of a folder")
        try:
            (self.folder / "images" / label).mkdir(parents=True)
        except FileExistsError as error:  # a file system where case does not count
            raise InputError(
                f"{self.shown}: two labels differ in case only, {label!r} and another, and this "
                "file system cannot tell them apart; set REFOCUS_CACHE to a folder on one that can"
            ) from error
        self.stems[label] = set()

    def _free(self, label: str, name: str) -> str:
        """A stem that no other image of the class has: images of one stem would share a mask."""
        taken = self.stems[label]
        stem = Path(name.replace("\\", "/")).stem.lstrip(".") or "image"
        stem = stem.encode("utf-8", "replace")[:200].decode("utf-8", "ignore")
        free, number = stem, 1
        while plain(free).casefold() in taken or hidden(Path(free)):
            number += 1
            free = f"{stem}-{number}"
        taken.add(plain(free).casefold())
        return free

    def _mask(self, mask: Path | bytes, label: str, stem: str) -> None:
        own = mask.suffix.lower() if isinstance(mask, Path) else ""
        ending = own if own in EXTENSIONS else _sniffed(mask)
        if ending is None:
            self.left_out["masks that are not images"] += 1
            return
        place = self.folder / "masks" / label
        place.mkdir(parents=True, exist_ok=True)
        _put(mask, place / f"{stem}{ending}")
        self.masks += 1

    def words(self, what: str) -> str:
        """What was found."""
        masked = f", {self.masks} with masks" if self.masks else ""
        left = ", ".join(f"{n} {reason}" for reason, n in sorted(self.left_out.items()))
        return (
            f"{what}, {self.count} images of {len(self.stems)} classes{masked}"
            f"{f'; left out: {left}' if left else ''}"
        )


def _ending(row: Row) -> str | None:
    """The extension by which an image's file will be known."""
    named = Path(row.name).suffix.lower()
    if named in EXTENSIONS:
        return named
    if isinstance(row.image, Path):
        own = row.image.suffix.lower()
        return own if own in EXTENSIONS else _sniffed(row.image)
    return _sniffed(row.image)


def _sniffed(content: Path | bytes) -> str | None:
    """An extension by content, None where it is no image."""
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
            kind = str(file.format)
    except UNREADABLE:
        return None
    ending = _ENDINGS.get(kind, f".{kind.lower()}")
    return ending if ending in EXTENSIONS else None


def _put(content: Path | bytes, target: Path) -> None:
    """Write content, or link a file; where links are not to be had, copy it."""
    if isinstance(content, bytes):
        target.write_bytes(content)
        return
    origin = content.resolve()
    for place in (os.symlink, os.link, shutil.copyfile):
        with contextlib.suppress(OSError):
            place(origin, target)
            return
    shutil.copyfile(origin, target)  # says what is wrong
