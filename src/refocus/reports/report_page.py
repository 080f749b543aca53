"""A report as a page and as Markdown, of what the modules beside it make."""

from __future__ import annotations

from torch import nn

from refocus.evaluation.suites import PROTOCOLS, SUITES
from refocus.figures import charts
from refocus.figures.escape import inline
from refocus.figures.glossary import words
from refocus.figures.html import page
from refocus.figures.tables import accuracy_rows, markdown, other_rows
from refocus.reports.changes import changed_classes, curves, group_rows, trained_rows
from refocus.reports.headline import facts_of, headline_of, key_numbers
from refocus.reports.report_pictures import galleries, shift_strips
from refocus.reports.strips import plain_rows
from refocus.reports.told import LABELS, Suites, Told

_WORDS = (
    "accuracy (top-1)",
    "own-class background",
    "other-class background",
    "BG-gap",
    "relevance",
    "relevance on the background",
    "do-no-harm rule",
    "tolerance",
    "check images",
    "held-out images",
    "share",
    "95 % interval",
    "calibration error",
    "protocol",
)


def html(told: Told, models: dict[str, nn.Module]) -> str:
    """The whole page; models by their names on it, the original first."""
    suites, tuning = told.suites, told.tuning
    rows = accuracy_rows(suites)
    paired = told.evaluation.against is not None
    return page(
        "report.html.j2",
        headline=headline_of(told),
        numbers=key_numbers(suites),
        facts=facts_of(told),
        recipe=tuning.recipe.to_dict() if tuning else {},
        paired=paired,
        accuracies=rows,
        others=other_rows(suites),
        chart=charts.accuracies(plain_rows(rows, list(suites)), LABELS) if rows else None,
        shifts={kind: s.about for entry in suites.values() for kind, s in entry.shifts.items()},
        strips=shift_strips(told, models),
        protocols=PROTOCOLS if any(name in SUITES for name in suites) else {},
        curves=curves(suites),
        trained=trained_rows(suites),
        groups=group_rows(suites),
        classes=changed_classes(suites),
        probes=tuning.probes if tuning else "",
        galleries=galleries(told, models) if paired else [],
        words=words(*_WORDS),
        tile_columns=4,
    )


def text(told: Told) -> str:
    """The same as Markdown, without pictures."""
    top = headline_of(told)
    said = (top.title, top.verdict, top.more, top.caution)
    title, *paragraphs = map(inline, said)
    parts = [f"# {title}", *paragraphs, _key_lines(told.suites)]
    for title, rows in (
        ("Accuracy (top-1, %)", accuracy_rows(told.suites)),
        ("Background, maps and calibration", other_rows(told.suites)),
        ("Groups, the worst first (top-1, %)", group_rows(told.suites)),
    ):
        parts += [f"## {title}", markdown(rows)] if rows else []
    facts = "\n".join(f"- {key}: {inline(value)}" for key, value in facts_of(told).items())
    parts += ["## What was done", facts]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _key_lines(suites: Suites) -> str:
    return "\n".join(
        f"- {inline(n.name)}: {inline(n.value)} ({inline(n.detail)})" for n in key_numbers(suites)
    )
