"""An output folder: never overwritten, files appear whole, the manifest is written last."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from refocus import __version__
from refocus.errors import InputError

MANIFEST = "manifest.json"


def new_folder(out: str | Path) -> Path:
    """Make an empty output folder; refuse one that holds anything."""
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"‹out› {out}: exists already and is never overwritten; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"‹out› {out}: cannot be created ({error.strerror})") from error
    return folder


def resumable(out: str | Path, resume: bool, settings: dict[str, Any]) -> Path:
    """A new folder, or with `resume` the one that was started with the same settings, finished or
    not.
    """
    folder = Path(out).expanduser()
    kept = folder / "settings.json"
    if resume and kept.exists():
        if read_json(kept) != settings:
            raise InputError(
                f"‹out› {out}: was started with other models, folders or options (see {kept}); "
                "name a new folder"
            )
        return folder
    folder = new_folder(out)
    write_json(folder / "settings.json", settings)
    return folder


def fingerprint(model: str) -> list[str]:
    """A model as given, and for a folder where it is and when its weights were written."""
    weights = _folder(model)[1].resolve() / "model.safetensors"
    return [str(weights.parent), str(weights.stat().st_mtime_ns)] if weights.is_file() else [model]


def state(path: Path) -> str:
    """Changes when a file at or below a path is changed, added or removed (by name, size and time;
    hidden files left out).
    """
    root = path.expanduser().resolve()
    files = (
        [root]
        if root.is_file()
        else [p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")]
    )
    rows = sorted(
        (p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files
    )
    return blake2b(repr(rows).encode(), digest_size=8).hexdigest()


def resolved(model: str) -> str:
    """A model as given, a folder by its full path, so that it can be loaded again from anywhere."""
    before, folder = _folder(model)
    return f"{before}{folder.resolve()}" if folder.is_dir() else model


def _folder(model: str) -> tuple[str, Path]:
    """The folder in a model's reference, and what stands before it: FOLDER, hf:FOLDER or
    py:MODULE:FUNCTION@FOLDER.
    """
    at = (
        model.find("@") + 1
        if model.startswith("py:") and "@" in model
        else 3
        if model.startswith("hf:")
        else 0
    )
    return model[:at], Path(model[at:]).expanduser()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is either absent or whole, whenever the process dies."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as partial:
        partial.write(content)
    os.chmod(partial.name, 0o644)  # NamedTemporaryFile makes it private
    os.replace(partial.name, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from error


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


def finish(folder: Path, command: str, **facts: Any) -> None:
    """Write the manifest: its presence says that everything before it is complete."""
    paths = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    files = sorted(str(p) for p in paths if not p.name.startswith(".") and str(p) != MANIFEST)
    write_json(
        folder / MANIFEST,
        {"command": command, "environment": environment(), **facts, "files": files},
    )
