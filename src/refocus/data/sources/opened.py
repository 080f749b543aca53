"""One way to open what `images` and `masks` name, and to say how it was understood."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from refocus.data.listing import hidden, listing
from refocus.data.sources.annotated import coco, is_voc, voc
from refocus.data.sources.archives import archive
from refocus.data.sources.rows import (
    HUB,
    Asked,
    Source,
    asking,
    choose_split,
    part_of,
    parts_of,
    refuse_unused,
)
from refocus.data.sources.sets import hub, is_saved, parquet, saved
from refocus.data.sources.tables import METADATA, table
from refocus.data.sources.unpack import unpacked
from refocus.errors import InputError, Message

log = logging.getLogger("refocus")

_KINDS = "an ImageFolder, a table (.csv, .tsv, .jsonl), .parquet, .tar, COCO's .json, or hf-data:ID"


@dataclass(frozen=True)
class Opened:
    """Class folders, and what the source knows beside them.

    images: an ImageFolder. masks: their masks, where the source has any. groups: a CSV file
    image,group, where it has any. parts: of train, val, test that there are to choose from. split:
    the one that was read, None where there are none.
    """

    images: Path
    masks: Path | None = None
    groups: Path | None = None
    parts: tuple[str, ...] = ()
    split: str | None = None


def opened(given: str | Path, parameter: str = "images", *, part: str = "train") -> Opened:
    """Class folders of any supported source; other layouts are unpacked once into a cache.

    Args:
        given: a folder, a file or `hf-data:ID`, with `?split=NAME` and `?label=COLUMN` where the
            answer is not plain.
        parameter: what the caller calls it, for messages.
        part: "train" or "test": which is read of several where the user names none.

    Raises:
        InputError: nothing of a known kind, or an image that it names is missing.
    """
    return _opened(asking(given, parameter, part))


def _opened(asked: Asked) -> Opened:
    if splits := _split_folders(asked):
        chosen = choose_split(asked, list(splits))
        others = [name for name in splits if name != chosen]
        if asked.split is None:
            log.info(
                Message(
                    f"{asked.shown}: holds {', '.join(splits)}; {chosen} is read (name "
                    f"{splits[(others or [chosen])[0]]} for another)"
                )
            )
        inside = _opened(replace(asked, place=str(splits[chosen]), split=None, beside=None))
        return replace(inside, parts=parts_of(list(splits)), split=chosen)
    source = _source(asked)
    if source is None:
        if asked.path.exists():  # else its reader says that it is missing
            refuse_unused(asked, ())
        return Opened(asked.path)
    folder = unpacked(source, asked)
    masks, groups = folder / "masks", folder / "groups.csv"
    return Opened(
        folder / "images",
        masks if masks.is_dir() else None,
        groups if groups.is_file() else None,
        source.parts,
        source.split,
    )


def opened_masks(
    given: str | Path, parameter: str = "masks", *, part: str = "train", beside: str | None = None
) -> Path:
    """The folder of masks that is named, or that a source named here has beside its images.

    beside: the split that the images are read from, "" where it is not known; the masks are of the
    same one.

    Raises:
        InputError: a source without masks, or without this split.
    """
    asked = replace(asking(given, parameter, part), beside=beside)
    found, path = _opened(asked), asked.path
    plain = path.is_dir() or found.images == path  # or is missing, which its reader says
    if found.masks is None and not plain:
        raise InputError(f"‹{parameter}› {given}: has no masks (a column or a field called mask)")
    return found.masks or found.images


def opened_pair(
    images: str | Path, masks: str | Path | None, parameter: str = "images", *, part: str = "train"
) -> Opened:
    """Images, and the masks that are named or come with them, of the same split.

    Raises:
        InputError: as `opened`; masks of several splits that do not say which is of the images.
    """
    found = opened(images, parameter, part=part)
    if masks is None:
        return found
    called = parameter.replace("images", "masks") if "images" in parameter else "masks"
    own = asking(images, parameter, part).path.name  # DIR/val, say
    split = found.split or (own if part_of(own) else "")
    return replace(found, masks=opened_masks(masks, called, part=part, beside=split))


def refuse_polarity(polarity: str) -> None:
    """Stop at a polarity where there are no masks: refocus knows which side of its own is which.

    Raises:
        InputError: it is not "ask".
    """
    if polarity != "ask":
        raise InputError(f"‹mask_polarity› {polarity}: only with ‹masks›, or images that carry any")


def _source(asked: Asked) -> Source | None:
    """The reader of what is named; None for a plain folder."""
    if asked.place.startswith(HUB):
        return hub(asked)
    path = asked.path
    if path.is_dir():
        return _folder(asked)
    kind = ".tar" if {".tar", ".tgz"} & set(path.suffixes) else path.suffix.lower()
    if not path.is_file():
        if kind in _READERS:
            raise InputError(f"{asked.shown}: no such file")
        return None  # a missing folder, which its reader names
    if kind not in _READERS:
        raise InputError(f"{asked.shown}: a file of unknown kind; must be {_KINDS}")
    return _READERS[kind](asked, path)


_READERS: dict[str, Callable[[Asked, Path], Source]] = {
    ".csv": table,
    ".tsv": table,
    ".jsonl": table,
    ".json": lambda asked, _file: coco(asked),
    ".parquet": lambda asked, file: parquet(asked, [file]),
    ".tar": lambda asked, file: archive(asked, [file]),
}


def _folder(asked: Asked) -> Source | None:
    path = asked.path
    if is_saved(path):
        return saved(asked)
    if is_voc(path):
        return voc(asked)
    for name in METADATA:
        if (path / name).is_file():
            return table(asked, path / name)
    found = listing(path, asked.parameter)
    if found.folders or found.images:
        return None if not _only(path / "data", ".parquet") else parquet(asked, _files(path))
    if _only(path, ".tar"):
        return archive(asked, sorted(path.glob("*.tar")))
    return parquet(asked, _files(path)) if _only(path, ".parquet") else None


def _only(folder: Path, kind: str) -> bool:
    """Whether a folder holds files of a kind and no images or folders."""
    if not folder.is_dir():
        return False
    inside = [p for p in folder.iterdir() if not hidden(p)]
    return any(p.suffix == kind for p in inside) and not any(p.is_dir() for p in inside)


def _files(folder: Path) -> list[Path]:
    """Parquet files of a folder, or of the folder data in it, as the hub lays them out."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def _split_folders(asked: Asked) -> dict[str, Path]:
    """Name -> folder where all folders of a root are parts of a data set, at least two."""
    path = asked.path
    if asked.place.startswith(HUB) or not path.is_dir():
        return {}
    inside = sorted(p for p in path.iterdir() if p.is_dir() and not hidden(p))
    named = {p.name: p for p in inside if part_of(p.name)}
    if len(named) < len(inside) or not named:
        return {}
    if any((path / name).is_file() for name in METADATA) or is_saved(path):
        return {}
    return named if all(_has_classes(p) for p in named.values()) else {}


def _has_classes(folder: Path) -> bool:
    """Whether a folder is no class folder itself: it holds folders or a table, and no images."""
    if any((folder / name).is_file() for name in METADATA):
        return True
    inside = listing(folder, "images")
    return bool(inside.folders) and not inside.images
