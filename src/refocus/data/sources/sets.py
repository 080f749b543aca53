"""Data sets of Hugging Face's library `datasets`: from the hub, saved on disk, or parquet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from refocus.data.listing import there
from refocus.data.sources.rows import (
    COLUMNS,
    HUB,
    Asked,
    LeftOut,
    Row,
    Source,
    Stated,
    ambiguous,
    as_text,
    choose_split,
    class_names_beside,
    column,
    named,
    parts_of,
    refuse_unused,
    split_of_files,
)
from refocus.errors import InputError, first_line

_COLUMNS = ("image", "label", "mask", "group")


def hub(asked: Asked) -> Source:
    """`hf-data:ID`, from the hub or from its local cache.

    Raises:
        InputError: no such data set, or no access to the hub.
    """
    library, name = _library(asked), asked.place.removeprefix(HUB)
    found = _tried(asked, lambda: library.load_dataset(name, asked.config))
    return _chosen(asked, found, f"the data set {name}", ("config",))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def saved(asked: Asked) -> Source:
    """A folder that `save_to_disk` wrote."""
    library = _library(asked)
    found = _tried(asked, lambda: library.load_from_disk(str(asked.path)))
    return _chosen(asked, found, "a saved data set")


def parquet(asked: Asked, files: Sequence[Path]) -> Source:
    """Parquet files with a column of images (content, or `datasets`' own) and one of labels.

    Files called `train-...`, `test-...`, as the hub has them, are splits.
    """
    library = _library(asked)
    chosen, split, parts = split_of_files(asked, files)
    refuse_unused(asked, (*_COLUMNS, *(["split"] if split else [])))
    mine = [str(file) for file in chosen]
    names = class_names_beside(files[0])

    def read() -> Iterator[Row | LeftOut | Stated]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            found = _tried(asked, lambda: library.Dataset.from_parquet(mine, cache_dir=temporary))
            yield from _rows(asked, library, found, names, files[0].parent)

    state = [f"{f}:{Path(f).stat().st_size}:{Path(f).stat().st_mtime_ns}" for f in mine]
    what = f"parquet{f', split {split}' if split else ''}"
    return Source(what, (*state, *(names or ())), read, parts, split)


def _chosen(asked: Asked, table: Any, what: str, used: Sequence[str] = ()) -> Source:
    """A data set, or the split of several that is read."""
    library = _library(asked)
    splits = list(table) if isinstance(table, dict) else []
    refuse_unused(asked, (*_COLUMNS, *used, *(["split"] if splits else [])))
    split = choose_split(asked, splits) if splits else None
    if split is not None:
        table, what = table[split], f"{what}, split {split}"
    names = None if asked.place.startswith(HUB) else class_names_beside(asked.path)
    files = [Path(file["filename"]) for file in table.cache_files]
    kept = [f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files if f.exists()]
    written = str(getattr(table, "_fingerprint", ""))  # of what is held in memory
    state = (*kept, written, str(table.features), str(len(table)), *(names or ()))
    read = partial(_rows, asked, library, table, names)
    return Source(what, state, read, parts_of(splits), split)


def _rows(
    asked: Asked, library: Any, table: Any, names: list[str] | None, folder: Path | None = None
) -> Iterator[Row | LeftOut | Stated]:
    """Every row, its image as content or path, after the order of the classes.

    folder: in which paths begin.
    """
    columns = list(table.features)
    of_kind = {name: _kind(feature) for name, feature in table.features.items()}
    mask = column(asked, "mask", columns, needed=False)
    label = _of_kind(asked, "label", "ClassLabel", of_kind)
    images = {n: k for n, k in of_kind.items() if n != mask}
    image = _of_kind(asked, "image", "Image", images)
    group = column(asked, "group", columns, needed=False)
    names = getattr(table.features[label], "names", None) or names
    if names:
        yield Stated(tuple(names))
    for name in (image, *([mask] if mask else [])):
        kept = library.Image(decode=False)
        table = _tried(asked, partial(table.cast_column, name, kept))
    for position, row in enumerate(table):
        said, pixels = row[label], row[image]
        text = as_text(said, asked.shown)
        called = None if text is None else named(text, names, asked.shown)
        if pixels is None or called is None:
            yield LeftOut("rows without an image or a label")
            continue
        content = _content(pixels, folder)
        origin = str(pixels.get("path") or "")
        name = Path(origin or f"{position:06d}").name
        drawn = _content(row[mask], folder) if mask and row[mask] is not None else None
        mine = (as_text(row[group], asked.shown, "group") if group else None) or ""
        yield Row(called, name, content, drawn, mine, origin)


def _of_kind(asked: Asked, kind: str, feature: str, of_kind: dict[str, str]) -> str:
    """The column asked for, the only one of a feature, or else the one of a usual name.

    Raises:
        InputError: none, or several could be meant: a number of classes called otherwise, say,
            beside texts called label.
    """
    typed = [name for name, found in of_kind.items() if found == feature]
    if kind not in asked.columns:
        usual = [name for name in of_kind if name.lower() in COLUMNS[kind]]
        if len(typed) == 1 and (kind == "image" or not usual or typed[0] in usual):
            return typed[0]
        if len(typed) == 1:
            raise ambiguous(asked, kind, [*usual, *typed])
        contents = [name for name in usual if "string" not in of_kind[name]]
        if kind == "image" and not typed and len(contents) == 1:  # beside the names of files
            return contents[0]
    named_so = [name for name in typed if name.lower() in COLUMNS[kind]]
    among = typed if named_so and kind not in asked.columns else list(of_kind)
    found = column(asked, kind, among, needed=True)
    assert found is not None
    return found


def _kind(feature: Any) -> str:
    """The name of a feature's type; of plain values that of their type, such as string."""
    return str(getattr(feature, "dtype", "") if type(feature).__name__ == "Value" else "") or (
        type(feature).__name__
    )


def _content(value: Any, folder: Path | None) -> Path | bytes:
    if value.get("bytes"):
        return bytes(value["bytes"])
    path = Path(value["path"])
    beside = path if folder is None else folder / path
    return beside if there(beside) else path


def _library(asked: Asked) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{asked.shown}: needs datasets; install it with pip install 'refocus-vit[datasets]'"
        ) from error
    return datasets


def _tried(asked: Asked, get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception as error:  # what the library raises differs by version and by cause
        raise InputError(
            f"{asked.shown}: cannot be read as a data set ({first_line(error)})"
        ) from error
