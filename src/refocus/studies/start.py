"""A study by name: what is asked is checked, what it runs on is opened, then it is conducted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refocus import locks, outputs
from refocus.data.trained import gone_images, trained_images
from refocus.errors import InputError
from refocus.files import read_json, write_json
from refocus.objectives.registry import OBJECTIVES
from refocus.processes import Place, take_place
from refocus.studies import datasets, registry
from refocus.studies.checks import check
from refocus.studies.conduct import conduct
from refocus.studies.estimate import Estimated, dry_run
from refocus.studies.order import ON_MASKS, Order
from refocus.studies.results import StudyResults
from refocus.studies.settings import StudySettings
from refocus.vit.loading import identity, load

_OF_ONE_RUN = ("gallery", "worst", "salience", "subsets")  # layouts


def study(
    name: str, out: str | Path, settings: StudySettings, *, progress: bool = True
) -> StudyResults | None:
    """Run a table or figure of the paper; what is done already in `out` is not done again.

    Any number of processes may share `out`, also on several machines and under torchrun: each takes
    whole runs that no other is at.

    Args:
        name: a row of `refocus.studies.registry.STUDIES`.
        out: folder that studies with the same settings share.
        settings: on what to run it, and how.
        progress: show bars on stderr.

    Returns:
        What NAME.json holds (docs/schema.md), the table as `text`; under torchrun None on a process
        other than the first.

    Raises:
        InputError: an unknown study or objective, or data that the study cannot be run on; `out`
            holds studies with other settings.
    """
    row, place, folder = _row(name, settings), take_place(), Path(out).expanduser()
    take_gpu(place)
    if settings.on:
        seen = _seen(settings, folder)
        network, models = _check_own(settings, seen)
        left_out = {"left_out": len(seen)} if seen else {}
        with _kept(folder, {**settings.kept(models), **left_out}):
            ground = _own(settings, folder, network, row)
            order = _order(name, row, measured_by(ground, settings), folder, settings)
        check(order)
    else:
        ground = measured_by(_published(settings), settings)
        outputs.refuse_inside(folder, datasets.named_paths(ground))
        order = _order(name, row, ground, folder, settings)
        check(order)
        with _kept(folder, {**settings.kept(), "places": datasets.places(ground)}):
            pass
    return conduct(order, place, progress=progress)


def take_gpu(place: Place) -> None:
    """Each process of a machine takes a GPU of its own, as far as there are some."""
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local % torch.cuda.device_count())


def estimate(name: str, settings: StudySettings) -> Estimated:
    """What a study on the paper's data sets would take.

    Places, whether they are there and how large, and the hours of each model on this machine.

    Raises:
        InputError: the settings are about the user's own images.
    """
    row = _row(name, settings)
    if settings.on:
        raise InputError("‹dry_run›: is about the paper's own data sets; give ‹data›, not ‹on›")
    ground = measured_by(_published(settings), settings)
    return dry_run(_order(name, row, ground, Path(), settings))


def _row(name: str, settings: StudySettings) -> registry.Study:
    row = registry.study(name)
    if settings.on and row.layout == "claims":
        raise InputError("study claims: is about the paper's own data sets; give ‹data›, not ‹on›")
    if (settings.seeds or 1) > 1 and row.layout in _OF_ONE_RUN:
        raise InputError(
            f"‹seeds› {settings.seeds}: study {name} shows images of one run; ‹seed› chooses it"
        )
    if unknown := [objective for objective in settings.rates if objective not in OBJECTIVES]:
        raise InputError(
            f"‹rates› {unknown[0]}={settings.rates[unknown[0]]:g}: no such objective; choose one "
            f"of {', '.join(OBJECTIVES)}"
        )
    return row


def _order(
    name: str,
    row: registry.Study,
    ground: datasets.Ground,
    folder: Path,
    settings: StudySettings,
) -> Order:
    return Order(
        name,
        row,
        ground,
        folder,
        settings.tuning,
        bool(settings.models),
        settings.maps,
        workers=settings.workers,
        seeds=settings.seeds,
    )


def measured_by(ground: datasets.Ground, settings: StudySettings) -> datasets.Ground:
    """With the protocol that the user asks for."""
    if settings.protocol is None:
        return ground
    return replace(ground, recipe={**ground.recipe, "protocol": settings.protocol})


def _published(settings: StudySettings) -> datasets.Ground:
    assert settings.data is not None
    ground = datasets.narrowed(datasets.read_toml(Path(settings.data)), settings.models)
    refs = ground.models.values()
    return replace(ground, trained=trained_images(*refs), gone=gone_images(*refs))


def _seen(settings: StudySettings, folder: Path) -> frozenset[Path]:
    """The user's own images that are no test of the models."""
    assert settings.on is not None
    outputs.refuse_inside(folder, {"‹on›": settings.on, **settings.mask_folders})
    on = Path(settings.on).expanduser()
    if (on / "train").is_dir() and not (on / "test").is_dir():
        return frozenset()  # refused next
    return datasets.seen_images(on, settings.references.values())


def _check_own(settings: StudySettings, seen: frozenset[Path]) -> tuple[nn.Module, list[list[str]]]:
    """Look at what is given before anything is written; the first model, and what each is."""
    assert settings.on is not None
    found: list[list[str]] = []
    for reference in reversed(settings.references.values()):
        network = load(reference)
        found.insert(0, identity(reference, network))
        datasets.check_own(
            Path(settings.on),
            network,
            settings.mask_folders,
            mask_polarity=settings.mask_polarity,
            seen=seen,
        )
    return network, found


def _own(
    settings: StudySettings, folder: Path, network: nn.Module, row: registry.Study
) -> datasets.Ground:
    """The user's images and models; shifts that are not there yet are written."""
    assert settings.on is not None
    kinds = settings.shifts or ("mixed-rand", *datasets.CURVES)
    return datasets.own(
        Path(settings.on),
        (settings.references, network),
        settings.mask_folders,
        folder,
        most=settings.most,
        seed=settings.seed,
        mask_polarity=settings.mask_polarity,
        kinds=() if row.layout in ON_MASKS else kinds,
    )


@contextmanager
def _kept(folder: Path, decisive: dict[str, Any]) -> Iterator[None]:
    """One folder, one set of settings: runs are shared by all studies in it.

    Its lock is held meanwhile: processes that share the folder prepare it one after the other.
    """
    outputs.refuse_links(folder, but=datasets.SPLIT)
    kept = folder / outputs.SETTINGS
    if not kept.exists():
        _begin(folder, kept)
    with locks.waited(folder):
        if not kept.exists():  # else another process has written it meanwhile
            write_json(outputs.new_folder(folder) / kept.name, decisive)
        elif (joined := _joined(folder, kept, decisive)) is not None:
            write_json(kept, joined)
        outputs.clean(folder, below=False)
        yield


def _joined(folder: Path, kept: Path, now: dict[str, Any]) -> dict[str, Any] | None:
    """What is to be kept where this study names places that earlier ones did not; else None.

    Raises:
        InputError: it has other settings than those, or one of their places lies elsewhere.
    """
    before = read_json(kept)
    known = before.pop("places", {}) if isinstance(before, dict) else {}
    places = {**known, **now.get("places", {})}
    others = {key: value for key, value in now.items() if key != "places"}
    named = {name: places[name] for name in known}
    if said := outputs.difference(before, others) or outputs.difference(known, named):
        raise InputError(
            f"‹out› {folder}: holds studies with other settings ({said}; see {kept}); name a new "
            "folder"
        )
    return {**others, "places": places} if places != known else None


def _begin(folder: Path, kept: Path) -> None:
    """Take a new folder, unless another process that shares it was faster."""
    try:
        outputs.new_folder(folder)
    except InputError:
        if not kept.exists() and not (folder / locks.LOCK).exists():
            raise
