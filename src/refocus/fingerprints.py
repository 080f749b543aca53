"""What a model, a file or a folder holds, short enough to be kept and compared later."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from refocus import references
from refocus.errors import InputError
from refocus.files import read_json

IDENTITY = "inputs.json"  # what a tuning run started from, by content
_ADAPTER = "adapter_config.json"
_MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "zero_shot.safetensors",
    _ADAPTER,
    "adapter_model.safetensors",
)

_SHARDS = "model-*.safetensors"  # of weights in several files


def of_model(model: str) -> list[str]:
    """What a model is: its reference, and the content of the folder and the names file in it.

    Of a name its reference and its names file (`refocus.vit.loading.identity` adds its weights).
    """
    before, folder = references.parts(model)
    said = references.split(model)[1]
    content = _model_files(folder)
    named = [Path(said["names"]).expanduser()] if "names" in said else []
    found = [of_file(file) for file in (*content, *named) if file.is_file()]
    return [*([f"{before}{folder.resolve()}", *said.values()] if content else [model]), *found]


def is_known(model: str) -> bool:
    """Whether a model's weights follow from the files that its reference names.

    Those of a hub's model do not, nor do those of an adapter, whose base lies elsewhere.
    """
    files = {file.name for file in _model_files(references.folder_of(model))}
    return bool(files) and _ADAPTER not in files


def _model_files(place: Path) -> list[Path]:
    """The weight file that a reference names, or those of its folder that make the model."""
    if references.is_weights(place):
        return [place]
    folder = place.resolve()
    found = [file for name in _MODEL_FILES if (file := folder / name).is_file()]
    return [*found, *sorted(folder.glob(_SHARDS))] if found else []


State = tuple[int, int]  # size and time of a file


def state(file: Path) -> State:
    """Size and time of a file, by which a cache sees that it was written anew."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def of_file(file: Path) -> str:
    """A short fingerprint of a file's content."""
    return _digest(file, state(file))


@lru_cache(maxsize=4096)
def _digest(file: Path, _state: State) -> str:
    content = blake2b(digest_size=8)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            content.update(block)
    return content.hexdigest()


class Copies:
    """Which files are some of a set, or hold the very bytes of one: datasets hold photos twice.

    Files of the set that are gone are known by their paths, and by their contents where these are
    given. Without such contents only files of a size that one of the set has are read.
    """

    def __init__(self, of: Iterable[Path], gone: Iterable[str] = ()) -> None:
        """gone: contents, as of `of_file`, of files of the set that lie elsewhere today."""
        self.paths = {file.resolve() for file in of}
        self.gone = frozenset(gone)
        self.sizes: dict[int, list[Path]] = {}
        self._contents: dict[int, set[str]] = {}  # of each size that was asked for, read once
        for file in self.paths:
            with contextlib.suppress(OSError):
                self.sizes.setdefault(file.stat().st_size, []).append(file)

    def __contains__(self, file: Path) -> bool:
        """Whether a file is one of them, or a copy of one."""
        if file.resolve() in self.paths:
            return True
        try:
            if self.gone and of_file(file) in self.gone:
                return True
            size = file.stat().st_size
            return size in self.sizes and of_file(file) in self._of(size)
        except OSError:
            return False

    def _of(self, size: int) -> set[str]:
        if size not in self._contents:
            self._contents[size] = {of_file(other) for other in self.sizes[size]}
        return self._contents[size]


def of_tree(path: Path, *, times: bool = True) -> str:
    """A fingerprint that changes when a file at or below a path does.

    When one is changed, added or removed (by name, size and time; hidden files left out).
    times: False leaves the time out, which a copy or an archive may change.
    """
    root = path.expanduser().resolve()
    files = [root] if root.is_file() else [f for f in _below(root) if not f.name.startswith(".")]
    rows = []
    for file in files:
        with contextlib.suppress(OSError):  # a link that leads nowhere
            status = file.stat()
            row = (file.relative_to(root).as_posix(), status.st_size)
            rows.append((*row, status.st_mtime_ns) if times else row)
    return blake2b(repr(sorted(rows)).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _below(root: Path) -> Iterator[Path]:
    """Files below a folder, links to folders followed, each folder once."""
    seen = set()
    for place, folders, files in os.walk(root, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(place, name) for name in files)


WEIGHTS, READING, TEACHER = "weights", "reading", "teacher"  # parts of what a run starts from
_PARTS = {
    WEIGHTS: "its model's weights have",
    READING: "its model's preprocessing or class names have",
    TEACHER: "its teacher's weights, preprocessing or class names have",
}


def of_text(*parts: object) -> str:
    """A short fingerprint of values whose `repr` says all."""
    return blake2b(repr(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def identity(
    origins: Mapping[str, str], files: Iterable[Path], folders: Iterable[Path] = ()
) -> dict[str, Any]:
    """What a run starts from, to be compared when it is resumed.

    origins: part, such as `WEIGHTS` -> its fingerprint. files: each image, mask and file of
    weights beside the model's. folders: what images and masks were chosen from.
    """
    return {
        **origins,
        "files": {str(file): of_file(file) for file in sorted(set(files))},
        "folders": {str(folder): of_tree(folder, times=False) for folder in sorted(set(folders))},
    }


def gone(kept: Path, files: Iterable[Path]) -> dict[str, str]:
    """Of files that no longer lie where they lay when `identity` kept them: path -> content.

    They may have been renamed or moved since, so they are looked for by content. Those whose
    content was not kept are passed over.
    """
    before = read_json(kept).get("files", {}) if kept.exists() else {}
    known = {file: before[str(file)] for file in files if str(file) in before}
    return {
        str(file): content
        for file, content in known.items()
        if not file.is_file() or of_file(file) != content
    }


def refuse_changed(kept: Path, origins: Mapping[str, str], shown: str) -> None:
    """Compare what a run started from, as `identity` kept it, with what lies there now.

    Parts that an earlier version did not keep are passed over.

    Raises:
        InputError: the model, its teacher, an image or a mask is another or gone; names the first.
    """
    before = read_json(kept)
    for part, now in origins.items():
        if part in before and before[part] != now:
            raise InputError(
                f"{shown}: {_PARTS[part]} changed since the run started; restore them or start "
                "a new run"
            )
    for name, known in before.get("files", {}).items():
        file = Path(name)
        if not file.is_file():
            raise InputError(f"{shown}: {name} has been removed since the run started; restore it")
        if of_file(file) != known:
            raise InputError(
                f"{shown}: {name} has changed since the run started; restore it or start a new run"
            )


def refuse_other_folders(kept: Path, shown: str) -> None:
    """Compare the folders that a run chose from, as `identity` kept them, with those of today.

    A finished run says nothing of images that were added since.

    Raises:
        InputError: a folder's files are others; names the first.
    """
    for name, known in read_json(kept).get("folders", {}).items():
        if of_tree(Path(name), times=False) != known:
            raise InputError(
                f"{shown}: files in {name} have been added, removed or changed since this finished "
                "run; name a new folder to tune with what is there now"
            )
