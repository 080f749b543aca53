"""Runs probes: model x images -> one record per image -> curves with intervals.

Each probe has a folder of its own.
"""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from refocus import locks, outputs, references
from refocus.data.sources.opened import opened_pair
from refocus.data.styles import adain
from refocus.errors import InputError
from refocus.evaluation.collect import Question, collect
from refocus.files import read_json
from refocus.probes import left_out, page, pictures, pooled
from refocus.probes.batch import seeds_of
from refocus.probes.choice import FOLDERS, names, supported
from refocus.probes.material import Material, Part, options_of
from refocus.probes.perturbed import refuse_missing, refuse_unreadable_styles
from refocus.probes.registry import PROBES, Probe
from refocus.probes.results import (
    FILE,
    MODEL,
    Counting,
    Numbers,
    ProbeResult,
    compared,
    read,
    write,
)
from refocus.probes.seen import Loader, batch_of
from refocus.probes.settings import ProbeSettings
from refocus.processes import sharing, workers_for
from refocus.records import (
    ProbeRecord,
    Records,
    Sample,
    Unreadable,
    record_of,
    told_apart,
)
from refocus.vit.inputs import check_path, check_reference, check_settings
from refocus.vit.loading import Models, load_models, pick_device
from refocus.vit.precision import check_precision, computing

log = logging.getLogger("refocus")


def probe(
    model: str | Path,
    out: str | Path,
    settings: ProbeSettings | None = None,
    *,
    images: str | Path | None = None,
    against: str | Path | None = None,
) -> dict[str, ProbeResult]:
    """Run robustness tests of the literature on a model, and on one to compare it with.

    Writes a folder for each probe, and `probes.html`, `probes.md` and `probes.csv` over all that
    the folder holds. What is complete is read, what was interrupted is resumed, and further probes
    can be added later with the same settings.

    Args:
        model: timm name, "hf:ID", "torchvision:NAME", or the folder of a model or of a finished
            run, as `refocus.load` takes it.
        out: folder of the probes.
        settings: which probes, on what; without it, all that need nothing but images.
        images: ImageFolder of the model's classes, CLASS/FILE.
        against: the model before; adds paired differences with 95 % intervals.

    Returns:
        Name -> result, in the order of the table.

    Raises:
        InputError: something cannot be used; nothing is written then.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example", per_class=2)
        >>> few = refocus.ProbeSettings(kinds=("cutout",), most=10)
        >>> found = refocus.probe(example.model, "probes", few, images=example.images)
        >>> found["cutout"].numbers.model.n
        10
    """
    settings, model = check_settings(settings, ProbeSettings), check_reference(model)
    against = None if against is None else check_reference(against, "against")
    folder = check_path(out, "out")
    kinds = names(settings.kinds, options_of(settings))
    refs = {"model": model, **({"against": against} if against else {})}
    root = None if images is None else check_path(images, "images")
    if root is not None:
        pair = opened_pair(root, settings.masks, part="test")
        masks = None if pair.masks is None else str(pair.masks)
        root, settings = pair.images, replace(settings, masks=masks)
    material = Material(root, settings, refs)
    device = pick_device(settings.device)
    check_precision(settings.precision, device)
    models = load_models(model, against, device)
    kinds = _fitting(supported(kinds, settings.kinds, models.values()), models, material)
    check(kinds, models, material, folder)
    found = {name: run(name, models, material, folder) for name in kinds}
    page.write(folder)
    return found


def _fitting(kinds: Sequence[str], models: Models, material: Material) -> list[str]:
    """Without those of `all` that fit a head, where there are too few images for one."""
    named = {name for part in material.settings.kinds for name in part.split(",")}
    kept = []
    for name in kinds:
        if PROBES[name].fits and name not in named:
            try:
                material.parts(PROBES[name], models[MODEL])
            except InputError as error:
                log.info("%s is left out: %s", name, error)
                continue
        kept.append(name)
    return kept


def check(kinds: Sequence[str], models: Models, material: Material, out: Path) -> None:
    """What can be wrong with folders and settings, before anything is written.

    One folder holds probes of the same models.
    """
    outputs.refuse_inside(out, _read(material))
    for name in kinds:
        row = PROBES[name]
        if row.found is not None:
            row.run(material.options)
        else:
            for model in models.values():
                _look_at_images(row, model, material)
        kept = out / name / outputs.SETTINGS
        if kept.exists():
            before = read_json(kept)
            outputs.refuse_other(out / name, before, material.decisive(row, models), kept)
    mine = material.models(models)
    for name in PROBES:
        kept = out / name / outputs.SETTINGS
        if not kept.exists():
            continue
        theirs = read_json(kept)
        if {k: v for k, v in theirs.items() if k in ("model", "against")} != mine:
            raise InputError(
                f"‹out› {out}: holds probes of other models ({name}); name a new folder"
            )
    if material.options.styles is not None:
        _ = material.options.style_images
    if material.options.adain is not None:
        adain(material.options.adain)


def _look_at_images(row: Probe, model: nn.Module, material: Material) -> None:
    """A probe's images are there, and so are the pictures that go with them."""
    load = Loader(model, with_mask="masks" in row.needs)
    for part in material.parts(row, model):
        if not any(_loads(load, sample) for sample in part.samples):  # the first does, as a rule
            raise _unreadable(part)
        if row.on == "imagenet_c":
            refuse_missing(part.root, [s.image for s in part.samples], material.options)
        if "styles" in row.needs:
            refuse_unreadable_styles(
                material.options, seeds_of(part.samples, part.root, material.settings.seed)
            )


def _loads(load: Loader, sample: Sample) -> bool:
    try:
        load(sample)
    except InputError:
        return False
    return True


def _unreadable(part: Part) -> InputError:
    return InputError(f"{part.root}: none of the {len(part.samples)} images can be read")


def _read(material: Material) -> dict[str, Path | None]:
    """What is read, by what a user calls it.

    A probe's folder within it would change it, and could not be resumed.
    """
    named = {f"‹{name}›": getattr(material.options, name) for name in (*FOLDERS, "adain")}
    return {"‹images›": material.images, **named}


def run(name: str, models: Models, material: Material, out: Path) -> ProbeResult:
    """One probe on every model -> OUT/NAME: records, result.json, and where it has one a picture.

    A folder that is complete is read; one that is not is resumed, with the same settings alone.
    """
    row = PROBES[name]
    decisive = material.decisive(row, models)
    folder = outputs.resumable(out / name, True, decisive, apart=_read(material))
    with locks.released(folder), computing(material.settings.precision):
        return _measured(name, models, material, folder)


def _measured(name: str, models: Models, material: Material, folder: Path) -> ProbeResult:
    """What a probe's folder holds, or else finds."""
    row = PROBES[name]
    complete = (folder / outputs.MANIFEST).exists() and (folder / FILE).exists()
    before = sharing().agreed(read(folder / FILE) if complete else None)
    if before is not None:
        log.info("%s: already complete, read from its records", name)
        if not complete:  # the folder of another process than the first, which pages are made of
            write(folder / FILE, before)
            outputs.finish(folder, "probe", kind=name, seed=material.settings.seed)
        elif sharing().count == 1 and _picture_gone(folder):
            again = _answers(name, models, material, folder)[MODEL]
            pictures.write(row, models[MODEL], material, folder, again)
        return before
    answers = _answers(name, models, material, folder)
    seed = material.settings.seed
    records = {which: _final(row, rows, seed) for which, rows in answers.items()}
    found = ProbeResult(
        kind=name,
        about=row.about,
        source=row.source,
        xlabel=row.xlabel,
        unit=row.unit,
        better=row.better,
        models={which: references.resolved(ref) for which, ref in material.refs.items()},
        numbers=_numbers(row, records, models, material),
        precision=material.settings.precision,
    )
    pictures.write(row, models["model"], material, folder, answers[MODEL])
    write(folder / FILE, found)
    outputs.finish(folder, "probe", kind=name, seed=seed)
    return found


def _picture_gone(folder: Path) -> bool:
    """Whether a complete folder had a picture and has none now."""
    had = pictures.FILE in outputs.manifest_of(folder).files
    return had and not (folder / pictures.FILE).exists()


def _numbers(
    row: Probe, records: dict[str, list[ProbeRecord]], models: Models, material: Material
) -> Numbers:
    levels = {
        which: row.found(material.options) if row.found else row.levels_of(models[which])
        for which in records
    }
    scale = 100.0 if "%" in row.unit else 1.0
    counting = Counting(scale, row.first, row.headline, material.settings.seed)
    if isinstance(row.pooled, left_out.LeftOut):
        return left_out.compared(records, levels, counting, row.pooled)
    if row.pooled is not None:
        return pooled.compared(records, levels, counting, row.pooled)
    return compared(records, levels, counting, row.extra)


def _answers(
    name: str, models: Models, material: Material, folder: Path
) -> dict[str, list[ProbeRecord]]:
    """Each model's records as they were made, of all parts of a probe's images."""
    row = PROBES[name]
    if row.found is not None:
        return {MODEL: row.run(material.options)}
    return {
        which: [
            record
            for part in material.parts(row, model)
            for record in _answered(name, which, model, material, part, folder)
        ]
        for which, model in models.items()
    }


def _answered(
    name: str, which: str, model: nn.Module, material: Material, part: Part, folder: Path
) -> list[ProbeRecord]:
    """One model's records; those that are in the folder already are not made again."""
    row, settings = PROBES[name], material.settings
    root, levels = part.root, len(row.levels_of(model))
    file = f"{which}-{part.name}.jsonl" if part.name else f"{which}.jsonl"

    def answer(samples: list[Sample], seen: Tensor) -> list[dict[str, Any]]:
        found = row.measure(batch_of(model, samples, seen, root, material))
        if row.after is None and row.pooled is None:
            _check_shapes(name, found, (len(samples), levels))
        return [
            {"values": {series: _plain(v[at]) for series, v in found.items()}}
            for at in range(len(samples))
        ]

    hold = partial(_held, below=f"{part.name}/" if part.name else "", source=folder / file)
    held = collect(
        part.samples,
        root,
        Question(Loader(model, with_mask="masks" in row.needs), answer, hold),
        records=folder / file,
        batch_size=settings.batch_size,
        workers=workers_for(settings.workers, next(model.parameters()).device.type),
        label=f"{name} ({which}{', ' if part.name else ''}{part.name})",
    )
    found: Records[ProbeRecord] = told_apart(held)
    for reason in found.unreadable.values():
        log.warning("skipped: %s", reason)
    if not found.rows:
        raise _unreadable(part)
    return found.rows


def _held(line: dict[str, Any], *, below: str, source: Path) -> ProbeRecord | Unreadable:
    """A line as a record, its numbers packed: features of many images are large.

    below: of the image, what part of the probe's images it is in.
    """
    found: ProbeRecord | Unreadable = record_of(line, ProbeRecord, source)
    if isinstance(found, Unreadable):
        return found
    values = {
        name: array("d", [math.nan if v is None else v for v in of_series])
        for name, of_series in found.values.items()
    }
    return ProbeRecord(f"{below}{found.image}", values)


def _check_shapes(name: str, found: dict[str, Tensor], shape: tuple[int, int]) -> None:
    """A probe of another package is told what it owes."""
    for series, values in found.items():
        if tuple(values.shape) != shape:
            raise InputError(
                f"probe {name}: series {series!r} is {list(values.shape)}, must be {list(shape)}: "
                "a number for each image and level"
            )


def _plain(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]


def _final(row: Probe, answers: list[ProbeRecord], seed: int) -> list[ProbeRecord]:
    """With the numbers that follow from all records together, where the probe has such."""
    return answers if row.after is None else row.after(answers, seed)
