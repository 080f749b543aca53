"""WebDataset: tar files in which the members of one stem are one sample."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from refocus.data.listing import EXTENSIONS, hidden
from refocus.data.sources.rows import (
    COLUMNS,
    Asked,
    LeftOut,
    Row,
    Source,
    Stated,
    as_text,
    choose_split,
    class_names_beside,
    named,
    part_of,
    parts_of,
    refuse_unused,
    split_of_files,
)
from refocus.errors import InputError, first_line
from refocus.records import decode

_MOST = 1 << 29  # bytes of one member
_LABELS = ("cls", "class", "label", "txt")
_MASKS = ("mask", "seg")


def archive(asked: Asked, files: Sequence[Path]) -> Source:
    """Tar files: KEY.jpg beside KEY.cls, or KEY.json with a label; KEY.mask.png where known.

    Members that lie as CLASS/FILE without any of these are labelled by their folder; there a name
    may hold dots. Files called `train-...`, `test-...` are splits, and so are folders called train,
    test above the classes.
    """
    mine, split, parts = split_of_files(asked, files)
    inside = [] if split else _splits_inside(mine, asked.shown)
    if inside:
        split, parts = choose_split(asked, inside), parts_of(inside)
    refuse_unused(asked, ["split"] if split else [])
    names = class_names_beside(files[0])

    def read() -> Iterator[Row | LeftOut | Stated]:
        if names:
            yield Stated(tuple(names))
        for file in mine:
            for key, found in _samples(file, asked.shown):
                own = _split_above(key, found)
                if own and not parts and _images(found):
                    raise _mixed(asked.shown, key, own)
                if not inside or own == split:
                    yield from _rows(key, found, names, asked.shown)

    state = tuple(f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in mine)
    what = f"an archive of {len(mine)} file{'s' if len(mine) > 1 else ''}"
    what = f"{what}, split {split}" if split else what
    return Source(what, (*state, *(names or ())), read, parts, split)


def _splits_inside(files: Sequence[Path], shown: str) -> list[str]:
    """Names of the splits that all images lie in; none where the first one lies in none.

    Raises:
        InputError: some images lie in splits and others do not.
    """
    found: dict[str, None] = {}
    for key, members in (each for file in files for each in _samples(file, shown, bare=True)):
        if not _images(members):
            continue
        own = _split_above(key, members)
        if own is None and found:
            raise _mixed(shown, key, next(iter(found)))
        if own is None:  # most archives have none: one that has some further on is refused then
            return []
        found[own] = None
    return list(found)


def _split_above(key: str, members: Iterable[str]) -> str | None:
    """The folder above an image, and above its class folder, that is called as a split is."""
    above = Path(key).parent.parts
    if not {*_LABELS, "json"} & set(members):
        above = above[:-1]
    return next((name for name in reversed(above) if part_of(name)), None)


def _mixed(shown: str, key: str, split: str) -> InputError:
    return InputError(
        f"{shown}: some images lie in folders of splits, such as {split}, and others in none; must "
        f"be all or none ({key} is the first to differ)"
    )


def _samples(
    file: Path, shown: str, *, bare: bool = False
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key -> extension -> content, for each run of members of one key.

    bare: without the content, which is then passed over.

    Raises:
        InputError: not a tar file, or members of one key that do not follow each other.
    """
    seen: set[str] = set()
    before: dict[str, bool] = {}  # start of a name -> whether a label lies beside it
    for start, members in _runs(file, shown, bare=bare):
        labelled = _labelled(members)
        found = {start: members} if labelled else _apart(start, members)
        torn = before.get(start, False) or (labelled and start in before)
        before[start] = labelled
        for key, parts in found.items():
            if torn or key in seen:
                raise InputError(
                    f"{shown}: members of {key} lie apart; those of one key must follow each "
                    "other, as in an archive that was packed in the order of names"
                )
            seen.add(key)
            yield key, {ending.lower(): content for ending, content in parts.items()}


def _labelled(members: Iterable[str]) -> bool:
    return not {*_LABELS, "json"}.isdisjoint(ending.lower() for ending in members)


def _apart(start: str, members: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Key -> its members, of those whose names are alike up to the first dot.

    They have no label, so that what follows the dot may be of an image's own name: `1.2.jpg` is one
    beside `1.3.jpg`, but `1.mask.png` is the mask of `1`.
    """
    parted = {ending: _parted(ending) for ending in members}
    named = {inner for inner, ending in parted.values() if _images([ending.lower()])}
    found: dict[str, dict[str, bytes]] = {}
    for whole, content in members.items():
        inner, ending = parted[whole]
        inner, ending = (inner, ending) if inner in named else ("", whole)
        found.setdefault(f"{start}.{inner}" if inner else start, {})[ending] = content
    return found


def _parted(ending: str) -> tuple[str, str]:
    """What of an ending belongs to the name, and the rest: `2.mask.png` is 2 and mask.png."""
    parts = ending.split(".")
    last = len(parts) - 1
    at = next((i for i in range(last) if parts[i].lower().startswith(_MASKS)), last)
    return ".".join(parts[:at]), ".".join(parts[at:])


def _runs(file: Path, shown: str, *, bare: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Path up to the first dot of a name -> the rest -> content, of members that follow each other.

    Raises:
        InputError: not a tar file.
    """
    current, parts = "", dict[str, bytes]()
    try:
        with tarfile.open(file, "r:*" if bare else "r|*", encoding="utf-8") as tar:
            for member in tar:
                path = Path(member.name)
                if not member.isfile() or hidden(path) or member.size > _MOST:
                    continue
                stem, _, ending = path.name.partition(".")
                key = (path.parent / stem).as_posix()
                if key != current and parts:
                    yield current, parts
                    parts = {}
                current = key
                content = None if bare else tar.extractfile(member)
                parts[ending] = content.read() if content else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{shown}: cannot be read as tar ({first_line(error)})") from error
    if parts:
        yield current, parts


def _images(members: Iterable[str]) -> list[str]:
    return [ending for ending in members if f".{ending}" in EXTENSIONS]


def _rows(
    key: str, parts: dict[str, bytes], names: list[str] | None, shown: str
) -> Iterator[Row | LeftOut]:
    """The image of a sample, or what is lost where it has none that is called as the key is."""
    others = [inner for e in parts if (inner := _parted(e)[0]) and _images([_parted(e)[1]])]
    if not _images(parts) and others:
        yield from (LeftOut("images not called KEY.EXT beside a label") for _ in others)
    else:
        yield _row(key, parts, names, shown)


def _row(key: str, parts: dict[str, bytes], names: list[str] | None, shown: str) -> Row | LeftOut:
    images = _images(parts)
    if not images:
        return LeftOut("samples without an image")
    masks = [e for e in parts if e.split(".")[0] in _MASKS and "." in e]
    for found in (images, masks):
        if len(found) > 1:
            raise InputError(
                f"{shown}: holds {key}.{found[0]} and {key}.{found[1]}; must hold one image, and "
                "one mask at most, for each key"
            )
    label = _label(parts, f"{shown}: {key}")
    if label is None and "/" in key:
        label = Path(key).parent.name
    called = named(label, names, shown) if label else None
    if not called:
        return LeftOut("images without a label")
    name = f"{Path(key).name}.{images[0]}"
    mask = parts[masks[0]] if masks else None
    origin = f"{key}.{images[0]}"
    return Row(called, name, parts[images[0]], mask, origin=origin)


def _label(parts: dict[str, bytes], shown: str) -> str | None:
    for ending in _LABELS:
        if ending in parts:
            return parts[ending].decode("utf-8", "replace").strip()
    if "json" in parts:
        try:
            content = decode(parts["json"])
        except Exception as error:
            raise InputError(f"{shown}.json: not JSON ({first_line(error)})") from error
        known = content if isinstance(content, dict) else {}
        found = (known[name] for name in COLUMNS["label"] if known.get(name) is not None)
        return as_text(next(found, None), shown)
    return None
