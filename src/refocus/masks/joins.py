"""Which entry of somebody's annotations belongs to an image: the one whose path ends most alike.

A file name alone decides only where it is unique on both sides: `0.png` of one class is not `0.png`
of another. An image of a table, an archive or a data set is known by the path that it has there,
and by its class and name, not by the name that it was unpacked under.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from refocus.data.listing import hidden
from refocus.data.sources.unpack import origin_of
from refocus.errors import InputError
from refocus.vit.classes import plain

_Key = Callable[[str], str]  # how the last part of a path is compared
_Path = tuple[str, ...]


def _exact(name: str) -> str:
    return name


def _stem(name: str) -> str:
    """Without extension and case: a PNG is the mask of a JPEG, and a table may say a/0."""
    stem, dot, end = name.rpartition(".")
    return (stem if dot and end.isalnum() else name).casefold()


def parts(name: str) -> _Path:
    """The parts of a path of any system, as they are compared."""
    return tuple(p for p in plain(name).replace("\\", "/").split("/") if p not in ("", "."))


def _paths(image: Path) -> tuple[_Path, ...]:
    """The paths that an image is known by, all of one name."""
    own = parts(os.path.abspath(image))
    origin = origin_of(image)
    if not origin or not (there := parts(origin)):
        return (own,)
    return (there, (*own[-2:-1], there[-1]))


class Join:
    """Image file -> name of its entry.

    names: of the entries, paths of any length. images: all that will be asked for; without them
    each is taken to be the only one. drawn: names are those of pictures of masks, whose extension
    says nothing of that of their image.
    """

    def __init__(
        self, names: Iterable[str], images: Sequence[Path] = (), *, drawn: bool = False
    ) -> None:
        named = [(name, parts(name)) for name in names]
        shown = [_paths(image) for image in images]
        self._tables = [(key, _table(named, key)) for key in (_exact, _stem)]
        self._images = _images(shown)
        self._folders = {path[-2] for image in shown for path in image if len(path) > 1}
        self._drawn = drawn

    def __call__(self, image: Path) -> str | None:
        """The entry of an image; None where it has none.

        Raises:
            InputError: several entries could be meant, or the entry could be of another image.
        """
        mine = _paths(image)
        others = [other for other in self._images.get(_stem(mine[0][-1]), []) if other != mine]
        lost = 0  # score of an entry that is another image's
        for key, table in self._tables:
            called = key(mine[0][-1])
            candidates = table.get(called, [])
            if not candidates:
                continue
            scored = [(_alike(mine, entry), name, entry) for name, entry in candidates]
            if (best := max(score for score, _, _ in scored)) <= lost:
                return None
            winners = [(name, entry) for score, name, entry in scored if score == best]
            classes = self._folders - {path[-2] for path in mine if len(path) > 1}
            if all(len(entry) > 1 and entry[-2] in classes for _, entry in winners):
                lost = best  # of another class, whose image may not be among these
                continue
            if len(winners) > 1:
                raise InputError(
                    f"{image}: {winners[0][0]} and {winners[1][0]} could both be meant; give paths "
                    "that tell them apart, such as CLASS/FILE"
                )
            name, entry = winners[0]
            rivals = [
                (
                    _alike(other, entry),
                    (last := key(other[0][-1])) == called or (self._drawn and last not in table),
                    other,
                )
                for other in others
            ]
            score, alike, rival = max(rivals, default=(0, False, ()))
            if score > best:  # of whatever extension: a PNG is the mask of a JPEG
                lost = best
                continue
            if score == best and alike:
                raise InputError(
                    f"{image}: {name} could as well be {'/'.join(rival[0][-2:])}; give paths that "
                    "tell them apart, such as CLASS/FILE"
                )
            return name
        return None


def _table(named: list[tuple[str, _Path]], key: _Key) -> dict[str, list[tuple[str, _Path]]]:
    table: dict[str, list[tuple[str, _Path]]] = defaultdict(list)
    for name, entry in named:
        if entry:
            table[key(entry[-1])].append((name, entry))
    return table


def _images(shown: list[tuple[_Path, ...]]) -> dict[str, list[tuple[_Path, ...]]]:
    table: dict[str, list[tuple[_Path, ...]]] = defaultdict(list)
    for image in shown:
        table[_stem(image[0][-1])].append(image)
    return table


def _alike(image: tuple[_Path, ...], other: _Path) -> int:
    """How many parts of an image's path and another agree from the end.

    The last, which was looked up, counts; of several paths of an image the best.
    """
    return max(_agreeing(one, other) for one in image)


def _agreeing(one: _Path, other: _Path) -> int:
    count = 1
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


def files_below(source: Path, extensions: Sequence[str]) -> dict[str, Path]:
    """Path below a folder -> file, for regular files with one of some extensions, at any depth.

    Raises:
        InputError: no such folder, or no such file in it.
    """
    if not source.is_dir():
        raise InputError(f"‹source› {source}: no such folder")
    found = {}
    for place, folders, files in os.walk(source, followlinks=True):
        folders[:] = sorted(f for f in folders if not hidden(Path(f)))
        if len(Path(place).parts) > len(source.parts) + _DEEP:  # a link back up
            folders.clear()
        for name in sorted(files):
            file = Path(place, name)
            if file.suffix.lower() in extensions and not hidden(file) and file.is_file():
                found[file.relative_to(source).as_posix()] = file
    if not found:
        kinds = " ".join(extensions) if len(extensions) < _MANY else "image"
        raise InputError(
            f"‹source› {source}: holds no {kinds} files, neither directly nor in folders"
        )
    return found


_DEEP = 12  # folders below a source
_MANY = 4  # endings that a message does not list
