"""How much a model relies on the background.

Numbers, worst classes, worst images, one page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from refocus import fingerprints, locks, outputs
from refocus.data.folders import class_folders, refuse_shared_stems, scan
from refocus.data.shifts import REAL, grounds
from refocus.data.sources.opened import opened_pair, refuse_polarity
from refocus.data.trained import gone_images, trained_images
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.metrics import group_differences
from refocus.evaluation.plan import Plan, check, without_trained
from refocus.evaluation.prove import prove
from refocus.figures.tables import accuracy_rows, as_csv, other_rows
from refocus.files import write_json, write_text
from refocus.masks.backbones import load_backbone
from refocus.masks.folder import find_masks
from refocus.masks.settings import MaskSettings
from refocus.records import MapRecord, Prediction, Sample, read_records, to_json
from refocus.reports.audit_page import SUITE, audit_page, relies
from refocus.reports.settings import AuditSettings
from refocus.results import (
    Audit,
    ClassReliance,
    Estimate,
    Reliance,
    SuiteEntry,
    WorstImage,
)
from refocus.vit.classes import class_folder_names
from refocus.vit.families import view
from refocus.vit.inputs import check_flag, check_path, check_reference, check_settings
from refocus.vit.loading import identity, load_models, pick_device, source
from refocus.vit.precision import check_precision, computing, decisive_precision

SHIFTS = ("mixed-same", "mixed-rand", "only-fg", "only-bg", "outline")
_CARDS = 8


def audit(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    masks: str | Path | None = None,
    settings: AuditSettings | None = None,
    resume: bool = True,
) -> Audit:
    """Measure how much a model relies on the background of the images in a folder.

    Writes audit.html, audit.json, audit.csv and the records into `out`.

    Args:
        model: timm name, hf:ID, torchvision:NAME, or the folder of a model or of a finished run.
        images: ImageFolder of the model's classes; best images it was not trained on. Those that a
            run of `refocus tune` trained it on are left out; a notice says how many.
        out: a new folder, or that of the same audit: what its records hold is not computed again.
        masks: foreground masks, CLASS/FILE-STEM.png; without them they are found, into `out/masks`.
        settings: how; without it, as `refocus audit` does.
        resume: False insists on a new folder.

    Returns:
        What audit.json holds.

    Raises:
        InputError: the input cannot be used; nothing is written then.

    Example:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example")
        >>> few = refocus.AuditSettings(most=20)
        >>> found = refocus.audit(
        ...     example.model, example.images, "audit", masks=example.masks, settings=few
        ... )
        >>> found.verdict.startswith("These images do not show")
        True
    """
    settings, model = check_settings(settings, AuditSettings), check_reference(model)
    resume = check_flag("resume", resume)
    images, out = check_path(images, "images"), check_path(out, "out")
    device = pick_device(settings.device)
    check_precision(settings.precision, device)
    network = load_models(model, None, device)["model"]
    found = opened_pair(images, masks, part="test")
    images, masks = found.images, found.masks
    if masks is None:
        refuse_polarity(settings.mask_polarity)
    plan = without_trained(_plan(images, masks, settings), network, model)
    folder = _prepared(model, network, plan, out, settings, resume=resume)
    with locks.released(folder):
        if masks is None:
            plan = _plan(plan.path(SUITE), folder / "masks", settings, model)
            wanted = MaskSettings(
                settings.backbone, workers=settings.workers, device=settings.device
            )
            find_masks(images, folder / "masks", wanted)
        with computing(settings.precision):
            entry = prove({"model": network}, plan, folder)[SUITE]
            return _written(folder, model, network, plan, settings, entry, automatic=masks is None)


def _written(
    folder: Path,
    model: str,
    network: nn.Module,
    plan: Plan,
    settings: AuditSettings,
    entry: SuiteEntry,
    *,
    automatic: bool,
) -> Audit:
    """audit.json, audit.csv, audit.html, and the manifest last."""
    maker = f"found without annotation by {settings.backbone}"
    content = Audit(
        model=model,
        images=str(plan.suites[SUITE]),
        masks=maker if automatic else str(plan.masks[SUITE]),
        automatic=automatic,
        seed=settings.seed,
        verdict=verdict(entry),
        entry=entry,
        precision=settings.precision,
        **_worst(folder, class_folder_names(network), settings.seed),
    )
    write_json(folder / "audit.json", to_json(content))
    rows = [*accuracy_rows({SUITE: entry}), *other_rows({SUITE: entry})]
    write_text(folder / "audit.csv", as_csv(rows))
    samples = plan.masked_samples(SUITE, plan.open(SUITE, network).samples)
    page = audit_page(content, network, samples, folder, settings.backgrounds)
    write_text(folder / "audit.html", page)
    outputs.finish(folder, "audit", seed=settings.seed)
    return content


def masked_samples(
    network: nn.Module, images: Path, masks: Path, settings: AuditSettings
) -> list[Sample]:
    """The images whose masks an audit with these settings trusts, in its order."""
    plan = _plan(images, masks, settings, source(network))
    return plan.masked_samples(SUITE, plan.open(SUITE, network).samples)


def check_masks(network: nn.Module, images: Path, masks: Path, settings: AuditSettings) -> None:
    """Whether an audit could be made of a folder, before anything is written.

    Raises:
        InputError: it could not, such as for want of masks that can be used.
    """
    check({"model": network}, _plan(images, masks, settings, source(network)))


def _plan(
    images: Path,
    masks: str | Path | None,
    settings: AuditSettings,
    model: str | None = None,
) -> Plan:
    """model: whose training images are left out."""
    return Plan(
        {SUITE: images},
        {SUITE: masks} if masks else {},
        (*SHIFTS, *((REAL,) if settings.backgrounds else ())) if masks else (),
        settings.backgrounds,
        mask_score=settings.mask_score,
        mask_polarity=settings.mask_polarity,
        most=settings.most,
        faithful=settings.faithful,
        leave_out=trained_images(model),
        gone=gone_images(model),
        seed=settings.seed,
        precision=settings.precision,
        workers=settings.workers,
    )


def _prepared(
    model: str,
    network: nn.Module,
    plan: Plan,
    out: str | Path,
    settings: AuditSettings,
    *,
    resume: bool,
) -> Path:
    """The folder of an audit, made once everything that can be wrong was looked at."""
    folder, images, masks = Path(out).expanduser(), plan.path(SUITE), plan.masks_of(SUITE)
    view(network)
    scan(images, network)
    kept: dict[str, Any] = {
        "model": identity(model, network),
        "images": str(images.resolve()),
        "masks": str(masks.resolve()) if masks else settings.backbone,
        "most": settings.most,
        "faithfulness": settings.faithful,
        "mask_score": settings.mask_score,
        "mask_polarity": settings.mask_polarity,
        "seed": settings.seed,
        "files": [fingerprints.of_tree(images)],
        **({"leave_out": sorted(map(str, plan.leave_out))} if plan.leave_out else {}),
        **decisive_precision(settings.precision),
    }
    if settings.backgrounds:
        grounds(settings.backgrounds)
        kept["backgrounds"] = str(Path(settings.backgrounds).expanduser().resolve())
        kept["files"].append(fingerprints.of_tree(Path(settings.backgrounds).expanduser()))
    if masks:
        check({"model": network}, plan)
        kept["files"].append(fingerprints.of_tree(masks))
    elif not (folder / "settings.json").exists():
        refuse_shared_stems(class_folders(images, "images"))
        load_backbone(
            settings.backbone
        )  # one that cannot be had is said before anything is written
    return outputs.resumable(out, resume, kept, apart={"‹images›": images, "‹masks›": masks})


# --- in one sentence ----------------------------------------------------------------------------


def verdict(entry: SuiteEntry) -> str:
    """One sentence, by the interval of the BG-gap and McNemar's test.

    Then by the interval of the change of confidence.
    """
    assert entry.background is not None  # an audit swaps backgrounds
    found = entry.background.model
    gap = found.bg_gap
    if gap.interval is None or gap.value is None:
        return "Too few images could be read to say anything; see the records."
    low, high = gap.interval
    points = f"{gap.value:.1f} points (95 %: {low:.1f} to {high:.1f})"
    same, rand = f"{found.mixed_same.value:.1f} %", f"{found.mixed_rand.value:.1f} %"
    if relies(entry):
        return (
            f"This model relies on the background: its accuracy falls from {same} on backgrounds "
            f"of the object's own class to {rand} on those of other classes, by {points}."
        )
    if found.bg_gap_p < 0.05 and high < 0:
        return (
            f"This model is more accurate on other classes' backgrounds ({rand}) than on those of "
            f"the object's own class ({same}), which is unexpected: check the masks first, and "
            "whether the images' own backgrounds belong to their class."
        )
    if fall := _certain_fall(found):
        return (
            "The background affects this model's confidence but, as far as these images show, not "
            f"its answers: confidence in the true class falls by {fall} on other classes' "
            f"backgrounds, while the BG-gap is {points}."
        )
    return (
        "These images do not show that this model relies on the background: the BG-gap is "
        f"{points}. More images would narrow that interval."
    )


def _certain_fall(reliance: Reliance) -> str:
    """How far confidence falls, where the interval leaves no doubt that it does; else empty."""
    lost = reliance.confidence_change.negative
    if lost.value is None or lost.interval is None or lost.interval[0] <= 0:
        return ""
    return f"{lost.value:.2f} (95 %: {lost.interval[0]:.2f} to {lost.interval[1]:.2f})"


# --- where it is worst --------------------------------------------------------------------------


def _worst(folder: Path, names: list[str], seed: int) -> dict[str, Any]:
    """The last two fields of an `Audit`, from its records."""
    records = folder / "records" / SUITE
    plain, same, rand = (
        read_predictions(records / f"{stage}.model.jsonl")
        for stage in ("standard", "mixed-same", "mixed-rand")
    )
    maps = read_records(records / "maps.model.jsonl", MapRecord).rows
    return {
        "classes": class_reliance(plain, same, rand, maps, names, seed),
        "worst_images": worst_images(same, rand, _CARDS),
    }


def class_reliance(
    plain: list[Prediction],
    same: list[Prediction],
    rand: list[Prediction],
    maps: list[MapRecord],
    names: list[str],
    seed: int,
) -> tuple[ClassReliance, ...]:
    """One row per class, the largest gap first; classes of fewer than two images are left out."""
    shares = {row.image: row.background_share for row in maps}
    swapped = {p.image for p in same}
    right: dict[str, list[bool]] = {}
    background: dict[str, list[float]] = {}
    for p in plain:
        if p.image in swapped:
            right.setdefault(names[p.label], []).append(p.right)
            share = shares.get(p.image)
            background.setdefault(names[p.label], []).extend([] if share is None else [share])
    return tuple(
        ClassReliance(
            name=row.name,
            n=row.change.top1.n,
            plain=100 * float(np.mean(right[row.name])),
            mixed_same=row.model,
            mixed_rand=row.against,
            bg_gap=Estimate(row.gain, row.change.top1.interval, row.change.top1.n),
            background_share=float(np.mean(background[row.name])) if background[row.name] else None,
        )
        for row in group_differences(same, rand, lambda p: names[p.label], seed)
        if row.change.top1.interval
    )


def worst_images(
    same: list[Prediction], rand: list[Prediction], count: int
) -> tuple[WorstImage, ...]:
    """Images right on their own class's background, the greatest fall first.

    The fall is that of the true class's confidence on another's background.
    """
    other = {p.image: p for p in rand}
    rows = []
    for p in same:
        swapped = other.get(p.image)
        if swapped is None or not p.right:
            continue
        if p.true_confidence is not None and swapped.true_confidence is not None:
            fall = p.true_confidence - swapped.true_confidence
            if fall > 0:
                rows.append(WorstImage(p.image, fall, swapped.right))
    return tuple(sorted(rows, key=lambda row: row.fall, reverse=True)[:count])
