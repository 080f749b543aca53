"""The page of a run: the verdict, what proves it, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from refocus.figures import charts
from refocus.figures.glossary import words
from refocus.figures.html import page
from refocus.figures.tables import KeyNumber, Row, accuracy_rows
from refocus.flow.answers import SWAPPED, swapped
from refocus.flow.results import AUDIT, MASKS, RunResult
from refocus.flow.settings import RunSettings, audit_settings
from refocus.masks.folder import SHEET
from refocus.masks.sheet import tile
from refocus.masks.trust import scores
from refocus.records import Sample
from refocus.reports import audit_page, before_after
from refocus.reports.audit import masked_samples
from refocus.reports.headline import key_number, shots_of
from refocus.reports.report_pictures import Gallery, galleries
from refocus.reports.strips import plain_rows
from refocus.reports.told import LABELS, Told
from refocus.results import Evaluation
from refocus.runs import MODEL, TUNE
from refocus.vit import own_models
from refocus.vit.loading import load, pick_device

_WORST, _MASKS = 4, 4  # images on which the model relies most, and masks of each kind
_PROOF = ("mixed-same", SWAPPED, "only-bg")  # shifts whose accuracy the page shows
_WORDS = (
    "own-class background",
    "other-class background",
    "BG-gap",
    "do-no-harm rule",
    "tolerance",
    "check images",
    "held-out images",
    "95 % interval",
)


@dataclass(frozen=True)
class Shown:
    """What a page shows: the result, and where its pictures come from."""

    result: RunResult
    model: str  # as it was given
    images: Path
    masks: Path
    records: Path  # of the report


@dataclass(frozen=True)
class _Mask:
    picture: str
    title: str


def html(shown: Shown, settings: RunSettings) -> str:
    """The whole page, which needs no other file; its links lead to the pages of the stages."""
    result, folder = shown.result, Path(shown.result.folder)
    network = load(shown.model, device=pick_device(settings.device))
    samples = masked_samples(network, shown.images, shown.masks, audit_settings(settings))
    proof = _proof(result.report)
    worst = result.audit.worst_images[:_WORST]
    links = {
        "what the audit found": f"{AUDIT}/audit.html",
        "before and after in full": f"{TUNE}/{before_after.PAGE}",
        "the masks": f"{MASKS}/{SHEET}",
    }
    return page(
        "run.html.j2",
        result=result,
        source=shown.model,
        images=shown.images,
        numbers=_numbers(result),
        chart=charts.accuracies(proof, LABELS),
        proof=proof,
        masks=_masks(samples, shown.masks) if result.masks else [],
        worst=audit_page.cards(network, samples, worst, shown.images, result.audit.seed),
        galleries=_before_and_after(shown, network),
        links={title: link for title, link in links.items() if (folder / link).exists()},
        trained=shots_of(
            len(before_after.selection_of(folder / TUNE).train), settings.shots, result.tuning
        ),
        settings=settings,
        words=words(*_WORDS),
        tile_columns=6,
    )


def _proof(report: Evaluation) -> list[Row]:
    """Top-1 of the test sets and of the shifts that the verdict rests on, under plain names."""
    rows = accuracy_rows(report.suites)
    wanted = [r for r in rows if r.name in report.suites or r.name.rpartition(": ")[2] in _PROOF]
    return plain_rows(wanted, list(report.suites))


def _numbers(result: RunResult) -> list[KeyNumber]:
    """The gap between own-class and other-class backgrounds, and both accuracies that matter."""
    suites = result.report.suites
    background = next((e.background for e in suites.values() if e.background), None)
    numbers = {
        "BG-gap: accuracy lost on other-class backgrounds": (
            (background.bg_gap, " points") if background else None
        ),
        "accuracy on unchanged held-out images": (
            next(e.first.top1 for e in suites.values() if e.protocols),
            " %",
        ),
        "accuracy on other-class backgrounds": (
            (found, " %") if (found := swapped(result.report)) else None
        ),
    }
    return [key_number(title, *number) for title, number in numbers.items() if number]


def _masks(samples: Sequence[Sample], folder: Path) -> list[_Mask]:
    """Masks that were found and are used: those with the lowest scores, and some of the rest."""
    known = scores(folder)
    ranked = sorted(samples, key=lambda s: known[f"{s.image.parent.name}/{s.image.stem}"])
    lowest, rest = ranked[:_MASKS], ranked[_MASKS:]
    spread = np.linspace(0, max(len(rest) - 1, 0), min(_MASKS, len(rest))).astype(int)
    return [
        _Mask(tile(s), f"score {known[f'{s.image.parent.name}/{s.image.stem}']:.2f}")
        for s in (*lowest, *(rest[i] for i in spread))
    ]


def _before_and_after(shown: Shown, original: nn.Module) -> list[Gallery]:
    """What changed on swapped backgrounds; nothing where the original was kept."""
    report = shown.result.report
    if report.against is None:
        return []
    code = own_models.code_of(shown.model) if shown.model.startswith("py:") else None
    folder = Path(shown.result.folder) / TUNE / MODEL
    device = next(original.parameters()).device
    tuned = load(own_models.tuned(folder, code), device=device)
    told = Told(shown.records, report, None)
    return galleries(told, {"original": original, "tuned": tuned}, brief=True)
