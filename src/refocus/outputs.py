"""An output folder: never overwritten, files appear whole, the manifest is written last."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import Any

import msgspec

from refocus import __version__, locks
from refocus.errors import InputError, first_line
from refocus.locks import LOCK
from refocus.records import decode, from_json, to_json

MANIFEST = "manifest.json"
SETTINGS = "settings.json"
IDENTITY = "inputs.json"  # what a tuning run started from, by content
_BEFORE_START = ("recipe.json", IDENTITY)  # a tuning run begins with selection.json
_PARTIAL = ".refocus-partial-"  # start of the names of files that are being written
# such names, and those of earlier versions
_LEFTOVER = re.compile(rf"{re.escape(_PARTIAL)}.*|\.[a-z_]+\.(json|jsonl|html|md|csv)\.\w{{8}}")
_MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "zero_shot.safetensors",
)
_MOST = 1 << 28  # bytes of a JSON file that refocus writes, with room to spare
_TEXT = 1 << 26  # bytes of a text file
_SPACE = re.compile("No space left|File too large|Disk quota|write failed|failed writing", re.I)


def new_folder(
    out: str | Path, *, apart: Mapping[str, Path | str | None] = MappingProxyType({})
) -> Path:
    """Make an empty output folder and hold its lock; refuse one that holds anything.

    Args:
        out: the folder, made with its parents where it is missing.
        apart: folders that are read, by what they are called; `out` may not lie in any of them.

    Raises:
        InputError: it holds something else than what a killed start left, another process writes
            there, it lies in a folder of `apart`, or it cannot be made.
    """
    refuse_inside(out, apart)
    folder = Path(out).expanduser()
    taken = InputError(
        f"‹out› {out}: exists already and is never overwritten; name a new folder, or give "
        f"{_maker(folder)} to go on there"
    )
    if folder.exists() and not folder.is_dir():
        raise taken
    try:
        if folder.is_dir() and not _only_leftovers(folder) and not (folder / LOCK).exists():
            raise taken
        folder.mkdir(parents=True, exist_ok=True)
        locks.hold(folder)
    except OSError as error:
        raise InputError(f"‹out› {out}: cannot be created ({error.strerror})") from error
    if not _only_leftovers(folder):
        locks.release(folder)
        raise taken
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def _maker(folder: Path) -> str:
    """In words, the command that wrote a folder, where its manifest says it."""
    command = "the very command that made it"
    with contextlib.suppress(InputError):
        command = f"the `refocus {manifest_of(folder).command}` that made it once more"
    return command


def _only_leftovers(folder: Path) -> bool:
    """Whether a folder holds nothing but what a process leaves that was killed at its start.

    Its lock, files with a temporary name, empty folders, and what a run writes before it can
    resume.
    """
    killed = (folder / LOCK).exists()  # else it would have been released
    return all(
        path.name == LOCK
        or (killed and path.name in _BEFORE_START)
        or _LEFTOVER.fullmatch(path.name) is not None
        or (path.is_dir() and not path.is_symlink() and _only_leftovers(path))
        for path in folder.iterdir()
    )


def refuse_inside(
    out: str | Path, apart: Mapping[str, Path | str | None], *, called: str = "out"
) -> None:
    """Stop where results would be taken for input.

    Args:
        out: where results go.
        apart: what a folder of input is called, such as "‹images›" -> the folder.
        called: the parameter that `out` is.

    Raises:
        InputError: `out` is one of the folders of `apart`, or lies in one.
    """
    place = Path(out).expanduser().resolve()
    for name, folder in apart.items():
        if folder is not None and place.is_relative_to(Path(folder).expanduser().resolve()):
            raise InputError(
                f"‹{called}› {out}: lies inside {name} {folder}, where results would be taken "
                "for input; name a folder outside it"
            )


def resumable(
    out: str | Path,
    resume: bool,
    settings: dict[str, Any],
    *,
    apart: Mapping[str, Path | str | None] = MappingProxyType({}),
) -> Path:
    """A new folder, or the one that was started with the same settings, finished or not.

    That is the one rule for going on: the same command again continues, another is refused. The
    folder's lock is held, and what killed processes left half-written is removed.

    Args:
        out: the folder.
        resume: False insists on a new folder.
        settings: what decides every file in it.
        apart: as of `new_folder`.

    Raises:
        InputError: as `new_folder`, or it was started with other settings; names the first.
    """
    refuse_inside(out, apart)
    folder = Path(out).expanduser()
    refuse_links(folder)
    kept = folder / SETTINGS
    if resume and kept.exists():
        refuse_other(out, read_json(kept), settings, kept)
        locks.hold(folder)
        clean(folder)
        return folder
    folder = new_folder(out)
    write_json(folder / SETTINGS, settings)
    return folder


def refuse_other(out: str | Path, before: Any, now: Any, kept: Path) -> None:
    """Stop where a folder was started with other settings than those it is to go on with.

    Args:
        out: the folder, as given.
        before: what it was started with.
        now: what it is to go on with.
        kept: the file that `before` stands in.

    Raises:
        InputError: names the first difference.
    """
    if before != now:
        raise InputError(
            f"‹out› {out}: was started with other models, folders or options "
            f"({_difference(before, now)}; see {kept}); the same command resumes there, for "
            "another name a new folder"
        )


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two settings differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *now]:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where} {key}".strip())
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        one, other = next((a, b) for a, b in zip(before, now, strict=True) if a != b)
        return _difference(one, other, where)
    return f"{where or 'all'}: {_short(before)} then, {_short(now)} now"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."


def refuse_links(folder: Path, *, but: str = "") -> None:
    """Stop where a folder to be continued holds a link, which would lead what is written elsewhere.

    Args:
        folder: what is continued.
        but: a folder in it that holds links to files of the user's, which are only read.

    Raises:
        InputError: names the link.
    """
    for place, folders, files in os.walk(folder):
        read = but and Path(place).is_relative_to(folder / but)
        for name in (*folders, *(() if read else files)):
            if (link := Path(place, name)).is_symlink():
                raise InputError(
                    f"{link}: is a link, and links inside an output folder are not followed; "
                    "remove it, or put what it leads to in its place"
                )


def clean(folder: Path, *, below: bool = True) -> None:
    """Remove the temporary files of killed processes; call it with the folder's lock held.

    below: also in its folders, which other processes may hold.
    """
    for path in (folder.rglob if below else folder.glob)(f"{_PARTIAL}*"):
        path.unlink(missing_ok=True)


# --- which model, which files -------------------------------------------------------------------


_SAID = re.compile(r"(?P<ref>.+)\?(?P<key>arch|names|order)=(?P<value>[^?]+)", re.DOTALL)
_WEIGHTS = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".safetensors")  # files of training scripts


def split_reference(ref: str) -> tuple[str, dict[str, str]]:
    """A model's reference without what follows it, and that.

    MODEL?order=natural, MODEL?names=FILE, and for a weight file FILE?arch=NAME before these.
    """
    said: dict[str, str] = {}
    while match := _SAID.fullmatch(ref):
        ref = match["ref"]
        said = {match["key"]: match["value"], **said}
    return ref, said


def reference(ref: str, *, names: str | Path | None = None, order: str | None = None) -> str:
    """A model's reference that says how its outputs are named; it can be loaded from anywhere.

    Raises:
        InputError: names and an order together, of which one decides alone.
    """
    if names is not None and order is not None:
        raise InputError("‹names› and ‹order›: give one of them; names decide the order")
    if names is None and order is None:
        return ref
    plain, said = split_reference(ref)
    plain += f"?arch={said['arch']}" if "arch" in said else ""
    if names is not None:
        return f"{plain}?names={Path(names).expanduser().resolve()}"
    return f"{plain}?order={order}"


def is_weights(path: Path) -> bool:
    """Whether a path is a weight file by its name and there."""
    return path.suffix in _WEIGHTS and path.is_file()


def fingerprint(model: str) -> list[str]:
    """What a model is: its reference, and the content of the folder and the names file in it.

    Of a name its reference alone (`refocus.vit.loading.identity` adds its weights).
    """
    before, folder = _folder(model)
    said = split_reference(model)[1]
    if not folder.is_dir() and not is_weights(folder):  # a name, whose weights only `load` has
        return [model]
    files = [folder] if is_weights(folder) else []
    files += [folder.resolve() / name for name in _MODEL_FILES]
    files += [Path(said["names"]).expanduser()] if "names" in said else []
    found = [digest(file) for file in files if file.is_file()]
    return [f"{before}{folder.resolve()}", *said.values(), *found] if found else [model]


def digest(file: Path) -> str:
    """A short fingerprint of a file's content."""
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(file: Path, _size: int, _time: int) -> str:
    content = blake2b(digest_size=8)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def identity(weights: str, files: Iterable[Path]) -> dict[str, Any]:
    """What a run starts from, to be compared when it is resumed.

    A fingerprint of its model's weights, and one of each image and mask.
    """
    return {"weights": weights, "files": {str(file): digest(file) for file in sorted(set(files))}}


def reopen(run: Path, weights: str, shown: str) -> None:
    """Hold the lock of a tuning run that is continued, and see that it starts from the same.

    What a killed process left half-written is removed.

    Raises:
        InputError: another process is at it, or its model, an image or a mask was changed.
    """
    refuse_links(run)
    locks.hold(run)
    try:
        if (run / IDENTITY).exists():  # not in runs of earlier versions
            refuse_changed(run / IDENTITY, weights, shown)
    except InputError:
        locks.release(run)
        raise
    clean(run)


def refuse_changed(kept: Path, weights: str, shown: str) -> None:
    """Compare what a run started from, as `identity` kept it, with what lies there now.

    Raises:
        InputError: the model, an image or a mask is another or gone; names the first.
    """
    before = read_json(kept)
    if before.get("weights") != weights:
        raise InputError(
            f"{shown}: its model's weights were changed since the run was started; bring them back "
            "or start a new run"
        )
    for name, known in before.get("files", {}).items():
        file = Path(name)
        if not file.is_file():
            raise InputError(f"{shown}: {name} is gone since the run was started; restore it")
        if digest(file) != known:
            raise InputError(
                f"{shown}: {name} was changed since the run was started; bring it back or start a "
                "new run"
            )


def state(path: Path) -> str:
    """A fingerprint that changes when a file at or below a path does.

    When one is changed, added or removed (by name, size and time; hidden files left out).
    """
    root = path.expanduser().resolve()
    files = [root] if root.is_file() else [f for f in _below(root) if not f.name.startswith(".")]
    rows = []
    for file in files:
        with contextlib.suppress(OSError):  # a link that leads nowhere
            status = file.stat()
            rows.append((file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
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


def resolved(model: str) -> str:
    """A model as given, a folder by its full path, so that it can be loaded again from anywhere."""
    before, folder = _folder(model)
    if not folder.is_dir() and not is_weights(folder):
        return model
    plain, said = split_reference(model)
    return f"{before}{folder.resolve()}{model[len(plain) :] if said else ''}"


def folder_of(model: str) -> Path:
    """The folder that a model's reference names, whether or not there is one."""
    return _folder(model)[1]


def _folder(model: str) -> tuple[str, Path]:
    """The folder in a model's reference, and what stands before it.

    FOLDER, hf:FOLDER or py:MODULE:FUNCTION@FOLDER.
    """
    model = split_reference(model)[0]
    at = (
        model.find("@") + 1
        if model.startswith("py:") and "@" in model
        else 3
        if model.startswith("hf:")
        else 0
    )
    return model[:at], Path(model[at:]).expanduser()


# --- writing ------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; then `path` is either as before or whole.

    Raises:
        OSError: the disk is full, or cannot be written; names `path`.
    """
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{token_hex(4)}")
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
        InputError: no regular file, larger than `most` bytes, not UTF-8, or no JSON, such as a NaN
            or what is nested a thousand levels deep.
    """
    try:
        return decode(read_bytes(path, most).removeprefix(codecs.BOM_UTF8))
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
        raise ValueError(f"{status.st_size >> 20} MB; legal are at most {most >> 20}")
    return path.read_bytes()


def environment() -> dict[str, str]:
    """Versions that a reader needs to repeat the run."""
    packages = ("torch", "torchvision", "timm", "accelerate", "numpy", "scipy")
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "refocus": __version__,
    }
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Manifest:
    """What was done in a folder, and with what."""

    command: str  # of refocus, such as "evaluate"
    environment: dict[str, str]  # package, "python" or "platform" -> version
    files: tuple[str, ...]  # paths below the folder, but for hidden ones
    seed: int | None = None  # of every random choice
    kind: str | None = None  # of `probe`: which one
    processes: int | None = None  # of `tune`: how many it ran in
    count: int | None = None  # of `masks`: how many were made
    unreadable: tuple[str, ...] = ()  # of `masks`: images without one


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a complete folder.

    Raises:
        InputError: there is none, or it is not one.
    """
    return from_json(read_json(folder / MANIFEST), Manifest, folder / MANIFEST)


def finish(folder: Path, command: str, **facts: Any) -> None:
    """Write the manifest: its presence says that everything before it is complete.

    `facts` are further fields of `Manifest`.
    """
    paths = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    files = sorted(str(p) for p in paths if not p.name.startswith(".") and str(p) != MANIFEST)
    manifest = Manifest(command, environment(), tuple(files), **facts)
    write_json(folder / MANIFEST, to_json(manifest))
    locks.release(folder)
