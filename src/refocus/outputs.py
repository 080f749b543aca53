"""An output folder: claimed by one process, never overwritten, its manifest written last."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from refocus import __version__, fingerprints, locks, runs
from refocus.errors import InputError
from refocus.files import PARTIAL, of_the_disk, read_json, write_json
from refocus.locks import LOCK
from refocus.records import from_json, to_json

MANIFEST = runs.MANIFEST
SETTINGS = "settings.json"
_FILES = "files"  # a setting: fingerprints of what is read, which follow from what is named
# settings that no option is called by -> what people know them by
_OPTIONS = {
    "scale": "protocol",
    "leave_out": "images that are left out, as they were trained on",
    "chose": "images that are left out, as they chose the epoch or the weights",
    "gone": "images that a model was trained on and that are not there any more",
    "held_out": "the test set that was split off",
}
_UNSET = object()  # a setting that a folder does not name
# a tuning run begins with selection.json
_BEFORE_START = (runs.RECIPE, fingerprints.IDENTITY)
# names of files that were being written, also those of earlier versions
_LEFTOVER = re.compile(rf"{re.escape(PARTIAL)}.*|\.[a-z_]+\.(json|jsonl|html|md|csv)\.\w{{8}}")


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
        f"‹out› {out}: already exists and is never overwritten; name a new folder, or resume "
        f"it with {_maker(folder)}"
    )
    if folder.exists() and not folder.is_dir():
        raise taken
    try:
        if folder.is_dir() and not _only_leftovers(folder) and not (folder / LOCK).exists():
            raise taken
        folder.mkdir(parents=True, exist_ok=True)
        locks.hold(folder)
    except OSError as error:
        if of_the_disk(error):
            raise
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
    command = "the command that made it"
    with contextlib.suppress(InputError):
        command = f"the `refocus {manifest_of(folder).command}` that made it"
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


def refuse_no_folder(out: str | Path, *, called: str) -> None:
    """Stop where a folder that is to be made, or to be written into, can be none.

    Args:
        out: the folder.
        called: what the caller calls it.

    Raises:
        InputError: it, or what it would lie in, is something else.
    """
    place = Path(out).expanduser()
    there = next((part for part in (place, *place.parents) if os.path.lexists(part)), None)
    if there is not None and not there.is_dir():
        raise InputError(
            f"‹{called}› {out}: {there} is not a folder; name a new or existing folder"
        )


def resumable(
    out: str | Path,
    resume: bool,
    decisive: dict[str, Any],
    *,
    apart: Mapping[str, Path | str | None] = MappingProxyType({}),
) -> Path:
    """A new folder, or the one that was started with the same settings, finished or not.

    That is the one rule for going on: the same command again continues, another is refused. The
    folder's lock is held, and what killed processes left half-written is removed.

    Args:
        out: the folder.
        resume: False insists on a new folder.
        decisive: what decides every file in it; kept as settings.json.
        apart: as of `new_folder`.

    Raises:
        InputError: as `new_folder`, or it was started with other settings; names the first.
    """
    refuse_inside(out, apart)
    folder = Path(out).expanduser()
    refuse_links(folder)
    kept = folder / SETTINGS
    if resume and kept.exists():
        refuse_other(out, read_json(kept), decisive, kept)
        locks.hold(folder)
        clean(folder)
        return folder
    folder = new_folder(out)
    write_json(folder / SETTINGS, decisive)
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
    if said := difference(before, now):
        raise InputError(
            f"‹out› {out}: was started with other models, folders or options ({said}; see {kept})"
            "; run the same command to resume, or name a new folder"
        )


def difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two settings differ, in words; "" where none does."""
    if before == now:
        return ""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted([*before, *now], key=lambda name: name == _FILES):
            was, is_ = before.get(key, _UNSET), now.get(key, _UNSET)
            if was != is_:
                return difference(was, is_, f"{where} {_OPTIONS.get(key, key)}".strip())
    if where.partition(" ")[0] == _FILES:
        return f"{where}: one content then, another now"
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        one, other = next((a, b) for a, b in zip(before, now, strict=True) if a != b)
        return difference(one, other, where)
    return f"{where or 'all'}: {_short(before)} then, {_short(now)} now"


def _short(value: Any) -> str:
    text = "not set" if value is _UNSET else json.dumps(value)
    if len(text) < 80:
        return text
    return f"{len(value)} of them" if isinstance(value, list) else text[:77] + "..."


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
                    "remove it, or replace it with what it points to"
                )


def clean(folder: Path, *, below: bool = True) -> None:
    """Remove the temporary files of killed processes; call it with the folder's lock held.

    below: also in its folders, which other processes may hold.
    """
    for path in (folder.rglob if below else folder.glob)(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)


def reopen(run: Path, origins: Mapping[str, str], shown: str) -> None:
    """Hold the lock of a tuning run that is continued, and see that it starts from the same.

    What a killed process left half-written is removed. origins: as of `fingerprints.identity`.

    Raises:
        InputError: another process is at it, or its model, its teacher, an image or a mask was
            changed; of a complete run also if its folders hold other files than they did.
    """
    refuse_links(run)
    locks.hold(run)
    try:
        if (run / fingerprints.IDENTITY).exists():  # not in runs of earlier versions
            fingerprints.refuse_changed(run / fingerprints.IDENTITY, origins, shown)
            if (run / MANIFEST).exists():
                fingerprints.refuse_other_folders(run / fingerprints.IDENTITY, shown)
    except InputError:
        locks.release(run)
        raise
    clean(run)


def gone(folder: Path, *names: str) -> list[str]:
    """Files of a complete folder's manifest that are no longer there, of `names` and below them."""
    content = read_json(folder / MANIFEST)
    listed = content.get("files") if isinstance(content, dict) else None
    return [
        name
        for name in (listed if isinstance(listed, list) else ())
        if any(name == n or name.startswith(f"{n}/") for n in names)
        and not (folder / name).is_file()
    ]


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
