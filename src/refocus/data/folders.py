"""Folders of images and of their masks: who belongs to which class, and which mask to which
image.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from torch import nn

from refocus.errors import InputError
from refocus.records import Sample
from refocus.vit.classes import class_count, folder_names

log = logging.getLogger("refocus")

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
)  # by name; the content decides how it is read


def class_folders(root: Path, parameter: str) -> dict[str, list[Path]]:
    """class name -> sorted image files of an ImageFolder (`root/class/file`).

    parameter: what the caller calls this folder, for the messages.
    """
    if not root.is_dir():
        raise InputError(f"‹{parameter}› {root}: no such folder")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(
            f"‹{parameter}› {root}: holds no class folders; images are expected as "
            f"{root}/CLASS/FILE"
        )
    found = {
        f.name: sorted(p for p in f.iterdir() if p.suffix.lower() in EXTENSIONS) for f in folders
    }
    if empty := [name for name, files in found.items() if not files]:
        raise InputError(
            f"‹{parameter}› {root / empty[0]}: class folder without images (legal: "
            f"{' '.join(EXTENSIONS)})"
        )
    return found


def image_files(root: Path, parameter: str = "images") -> list[Path]:
    """Sorted image files of a folder: those in its class folders, and those that lie in it
    directly.
    """
    if not root.is_dir():
        raise InputError(f"‹{parameter}› {root}: no such folder")
    flat = sorted(p for p in root.iterdir() if p.is_file() and p.suffix.lower() in EXTENSIONS)
    if flat and not any(p.is_dir() and not p.name.startswith(".") for p in root.iterdir()):
        return flat
    return flat + [file for files in class_folders(root, parameter).values() for file in files]


def scan(
    root: str | Path,
    model: nn.Module,
    *,
    masks: str | Path | None = None,
    parameter: str = "images",
) -> list[Sample]:
    """All images of a folder with the model's labels, and with their masks where a mask folder is
    given.

    Raises:
        InputError: a class folder that the model does not know, or a mask that belongs to no image.
    """
    root = Path(root).expanduser()
    folders = class_folders(root, parameter)
    if class_count(model) < 1:
        raise InputError("the model has no classifier head (0 classes); give a classifier")
    names = folder_names(model)
    if names is None:
        if len(folders) != class_count(model):
            raise InputError(
                f"‹{parameter}› {root}: the model carries no class names and has "
                f"{class_count(model)} outputs, but there are "
                f"{len(folders)} class folders; give one folder for each output"
            )
        names = list(folders)
        log.warning(
            "the model carries no class names: its outputs are taken as the folders of %s in "
            "sorted order",
            root,
        )
    index = {name: i for i, name in enumerate(names)}
    if unknown := [name for name in folders if name not in index]:
        known = ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
        raise InputError(
            f"‹{parameter}› {root / unknown[0]}: the model knows no class {unknown[0]!r}; it knows "
            f"{known}"
        )
    if absent := [name for name in names if name not in folders]:
        log.info(
            "%s: no folder for %d of the model's %d classes (%s)",
            root,
            len(absent),
            len(names),
            ", ".join(absent[:3]),
        )
    found = (
        {name: {} for name in folders}
        if masks is None
        else _mask_files(Path(masks).expanduser(), folders, parameter)
    )
    return [
        Sample(file, index[name], found[name].get(file.stem))
        for name, files in folders.items()
        for file in files
    ]


def folder_samples(root: Path, masks: Path) -> list[Sample]:
    """All images of a folder with their masks, labelled by the position of their class folder; no
    model is asked.
    """
    folders = class_folders(root.expanduser(), "images")
    found = _mask_files(masks.expanduser(), folders, "images")
    numbered = enumerate(folders.items())
    return [
        Sample(file, label, found[name].get(file.stem))
        for label, (name, files) in numbered
        for file in files
    ]


def refuse_shared_stems(folders: dict[str, list[Path]]) -> None:
    """a.jpg and a.png of one class would share the mask a.png."""
    for files in folders.values():
        stems = Counter(f.stem for f in files)
        if doubled := [f for f in files if stems[f.stem] > 1]:
            raise InputError(
                f"{doubled[0]} and {doubled[1].name}: would share the mask {doubled[0].stem}.png; "
                "rename one"
            )


def _mask_files(
    root: Path, folders: dict[str, list[Path]], parameter: str
) -> dict[str, dict[str, Path]]:
    """class name -> image stem -> mask file; a mask without its image is an error (a misspelt name
    would be lost).
    """
    parameter = "val_masks" if parameter == "val" else "masks"
    if not root.is_dir():
        raise InputError(f"‹{parameter}› {root}: no such folder")
    if strangers := sorted(
        p.name
        for p in root.iterdir()
        if p.is_dir() and not p.name.startswith(".") and p.name not in folders
    ):
        log.info(
            "%s: masks of %d classes without images are not read (%s)",
            root,
            len(strangers),
            ", ".join(strangers[:3]),
        )
    refuse_shared_stems(folders)
    found = {}
    for name, files in folders.items():
        found[name] = {p.stem: p for p in sorted((root / name).glob("*.png"))}
        if orphans := sorted(set(found[name]) - {f.stem for f in files}):
            raise InputError(
                f"‹{parameter}› {found[name][orphans[0]]}: mask without an image of that name in "
                f"class {name!r}"
            )
    return found
