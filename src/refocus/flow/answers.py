"""The three questions of a run, answered from its numbers alone.

Does the model rely on the background? Did tuning help? Should the tuned model be used?
"""

from __future__ import annotations

from collections.abc import Mapping

from refocus.figures.tables import Row
from refocus.flow.results import Answer
from refocus.reports.audit_page import relies
from refocus.results import Audit, Change, Compared, Evaluation
from refocus.tuning.results import TuneResults

SWAPPED = "mixed-rand"  # objects on backgrounds of other classes


def answers(audit: Audit, tuning: TuneResults, report: Evaluation) -> tuple[Answer, ...]:
    """All three, in the order in which a reader asks them.

    Args:
        audit: of the model as it was given.
        tuning: of the run.
        report: before and after; without a model to compare with where the original was kept.
    """
    return (
        Answer("Does it rely on the background?", _relies(audit), audit.verdict),
        Answer("Did tuning help?", *_helped(tuning, report)),
        Answer("Ship the tuned model?", *_ship(tuning, report)),
    )


def ships(tuning: TuneResults, report: Evaluation) -> bool:
    """Whether the rule advises the tuned model and no test contradicts it."""
    return tuning.verdict.ship and not losses(report)


def losses(report: Evaluation) -> Mapping[str, Compared]:
    """Test sets on which the tuned model is less accurate, with an interval that leaves 0 out.

    As they are, or on backgrounds of other classes, on which the rule promises a gain.
    """
    found = {name: entry.first.top1 for name, entry in report.suites.items() if entry.protocols}
    found |= {
        f"{name} with other-class backgrounds": entry.shifts[SWAPPED].top1
        for name, entry in report.suites.items()
        if SWAPPED in entry.shifts
    }
    return {name: top1 for name, top1 in found.items() if _decided(top1.change) < 0}


def swapped(report: Evaluation) -> Compared | None:
    """Top-1 with backgrounds of other classes, on the first set that has masks."""
    shifts = (entry.shifts.get(SWAPPED) for entry in report.suites.values())
    return next((shift.top1 for shift in shifts if shift is not None), None)


def _relies(audit: Audit) -> str:
    if audit.entry.background is None:
        return "Not known"
    if relies(audit.entry):
        return "Yes"
    fall = audit.entry.background.model.confidence_change.interval
    return "In its confidence" if fall and fall[1] < 0 else "No evidence"


def _helped(tuning: TuneResults, report: Evaluation) -> tuple[str, str]:
    if tuning.kept_original:
        return "Nothing changed", (
            "Tuning was tried and its weights were not kept, so the model is the original one."
        )
    found = swapped(report)
    if found is None or found.change is None:
        return "Not known", "No image with a mask was left to measure it on."
    row = Row("", "", found)
    sentence = (
        f"On other-class backgrounds, accuracy on held-out images went from {row.against_text} "
        f"to {row.value_text} % ({row.difference_text} points, 95 %: "
        f"{row.difference_interval_text}; n = {row.n_text})."
    )
    return {1: "Yes", 0: "No evidence", -1: "No, it harmed"}[found.change.decided], sentence


def _ship(tuning: TuneResults, report: Evaluation) -> tuple[str, str]:
    if not tuning.verdict.ship:
        return "No, keep the original", tuning.verdict.sentence
    lost = [
        f"{name} ({row.against_text} to {row.value_text} %, 95 % of the change: "
        f"{row.difference_interval_text} points)"
        for name, row in ((name, Row(name, "", top1)) for name, top1 in losses(report).items())
    ]
    if lost:
        return "No, a test contradicts it", (
            f"The tuned model is less accurate on {', '.join(lost)}, although the check images "
            f"showed otherwise: {tuning.verdict.sentence}"
        )
    return "Yes", tuning.verdict.sentence


def _decided(change: Change | None) -> int:
    return change.decided if change else 0
