"""What runs of `refocus tune` trained a model on, by the selection that each of them keeps.

A number on these images says nothing about others, so nothing measures them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from refocus import fingerprints, records, references
from refocus.errors import InputError, Message
from refocus.files import read_json
from refocus.fingerprints import Copies
from refocus.records import Sample
from refocus.runs import RECIPE, SELECTION

log = logging.getLogger("refocus")
T = TypeVar("T")


@dataclass(frozen=True)
class _Label:
    label: int


@dataclass(frozen=True)
class _Image:
    image: str


@dataclass(frozen=True)
class _Labels:
    """Of selection.json, what says which classes were trained on."""

    train: list[_Label]


@dataclass(frozen=True)
class _Images:
    """Of selection.json, what says which images were trained on."""

    train: list[_Image]


@dataclass(frozen=True)
class _Base:
    """Of recipe.json, what a run started from."""

    model: str


def trained_classes(model: str) -> frozenset[int]:
    """Labels of the classes that a run of `refocus tune` trained on.

    For a model that lies in the run's folder; else none.
    """
    run = _run_of(model)
    found = None if run is None else _read(run / SELECTION, _Labels)
    return frozenset(row.label for row in found.train) if found else frozenset()


def trained_images(*models: str | None) -> frozenset[Path]:
    """The images that runs of `refocus tune` trained models on, links resolved.

    Those of the run whose folder a model lies in, of the run that this one started from, and so on;
    none of a model of another kind.

    Args:
        models: references, as `refocus.load` takes them; None stands for no model.

    Raises:
        InputError: a selection or a recipe that cannot be read.
    """
    return frozenset(image for images in _by_run(*models).values() for image in images)


def gone_images(*models: str | None) -> dict[str, str]:
    """Of `trained_images`, those that no longer lie where they were: path -> content.

    As far as their run kept it.

    Args:
        models: as of `trained_images`.
    """
    found: dict[str, str] = {}
    for run, images in _by_run(*models).items():
        found |= fingerprints.gone(run / fingerprints.IDENTITY, images)
    return found


def _by_run(*models: str | None) -> dict[Path, set[Path]]:
    """Folder of a run -> what it trained on, of every run that led to the models."""
    left = [model for model in models if model]
    found: dict[Path, set[Path]] = {}
    while left:
        run = _run_of(left.pop())
        if run is None or run in found:
            continue
        found[run] = {Path(row.image).resolve() for row in _read(run / SELECTION, _Images).train}
        if (run / RECIPE).is_file():
            left.append(_read(run / RECIPE, _Base).model)
    return found


def without(
    samples: list[Sample],
    trained: frozenset[Path],
    shown: str,
    gone: Mapping[str, str] = MappingProxyType({}),
) -> list[Sample]:
    """The samples that are none of the images trained on, nor copies of one under another name.

    shown: the folder that they lie in, for the error. gone: as of `gone_images`; of other images
    as well.

    Raises:
        InputError: none is left.
    """
    known = Copies(trained, [gone[path] for path in map(str, trained) if path in gone])
    left = [s for s in samples if s.image not in known] if trained else samples
    if samples and not left:
        raise InputError(f"{shown}: tuning used all of its {len(samples)} images; must have others")
    return left


def say_left_out(
    left_out: dict[str, tuple[int, int]],
    trained: frozenset[Path],
    gone: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """One notice of how many images are not measured, and one where copies cannot be told.

    left_out: folder -> how many images of how many. gone: as of `gone_images`.
    """
    if counts := [f"{n} of {of} in {shown}" for shown, (n, of) in left_out.items() if n]:
        log.warning(
            Message(
                f"not measured, as the model was tuned on these images or on copies of them: "
                f"{', '.join(counts)}"
            )
        )
    if lost := sorted(file for file in trained if str(file) not in gone and not file.is_file()):
        log.warning(
            "%d of the %d images that the model was tuned on are no longer where they were, %s "
            "first: copies of them under another name or in another folder are measured",
            len(lost),
            len(trained),
            lost[0],
        )


def _run_of(model: str) -> Path | None:
    """The folder of the tuning run that a model lies in."""
    with contextlib.suppress(InputError, OSError):  # of an unfinished run, or no legal path
        place = references.folder_of(model).resolve()
        folder = place.parent if place.is_file() else place
        if folder.is_dir() and (folder.parent / SELECTION).is_file():
            return folder.parent
    return None


def _read(file: Path, kind: type[T]) -> T:
    return records.from_json(read_json(file), kind, file)
