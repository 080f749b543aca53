"""A study from beginning to end: runs, table, figures, page."""

from __future__ import annotations

import json
from pathlib import Path

from refocus import locks, outputs
from refocus.files import write_json, write_text
from refocus.processes import Place, workers_for
from refocus.records import to_json
from refocus.studies import claims, exports, writing
from refocus.studies.findings import Findings, find
from refocus.studies.jobs import How, run
from refocus.studies.order import Order
from refocus.studies.page import write_page
from refocus.studies.registry import Variant
from refocus.studies.results import StudyResults
from refocus.tuning.results import results_of


def conduct(order: Order, place: Place, *, progress: bool = True) -> StudyResults | None:
    """Run what is missing and write NAME.json, NAME.md, NAME.csv, NAME.tex and NAME.html.

    None on a process other than the first.
    """
    how = How(
        tuple(order.measured),
        order.device,
        order.map_images,
        order.seed,
        workers_for(order.workers, order.device.type),
        progress,
    )
    run(order.jobs, order.ground, order.out, order.common, how, place)
    if place.rank:
        return None
    found = find(order)
    with locks.waited(order.out):  # another process may be at the same pages
        return _write(order, found)


def _write(order: Order, findings: Findings) -> StudyResults:
    """The files, NAME.json first."""
    text = findings.text or writing.markdown(findings.lines)
    results = StudyResults(
        order.name,
        order.about,
        _facts(order, findings),
        text,
        findings.lines,
        findings.claims,
        findings.classes,
        findings.subsets,
        findings.salience,
    )
    note = "" if findings.text else writing.NOTE
    write_json(order.out / f"{order.name}.json", to_json(results))
    write_text(
        order.out / f"{order.name}.md", f"# {order.name}: {results.about}\n\n{text}\n{note}\n"
    )
    write_text(order.out / f"{order.name}.csv", exports.as_csv(findings))
    write_text(order.out / f"{order.name}.tex", exports.as_latex(findings))
    write_page(
        order.out / f"{order.name}.html",
        order.name,
        results.about,
        table=[] if findings.text else writing.table_of(findings.lines),
        shown=findings.charts,
        groups=findings.groups,
        text=findings.text,
        facts=results.facts,
    )
    return results


def _facts(order: Order, findings: Findings) -> dict[str, str]:
    common = {key: value for key, value in order.common.items() if key != "rates"}
    last = order.common.get("select") == "last"
    epoch = "the last epoch" if last else "the best epoch by validation loss, as in the paper"
    said = {
        "models": ", ".join(f"{name} ({order.ground.models[name]})" for name in order.models),
        "masks": ", ".join(order.ground.masks),
        "suites": ", ".join(order.suites),
        "settings": json.dumps({**order.ground.recipe, **common}, default=str),
        "draws": _draws(order) if order.jobs else "",
        "learning rates": _rates(order),
        "claims": claims.RULE if findings.claims else "",
        "weights measured": f"{epoch}; no do-no-harm rule" if order.jobs else "",
        "versions": ", ".join(f"{k} {v}" for k, v in outputs.environment().items()),
    }
    return {what: text for what, text in said.items() if text}


def _draws(order: Order) -> str:
    """By which seeds."""
    what = "training classes by seed" if order.row.draws else "seed"
    first = 0 if order.row.draws else order.seed
    return f"{what} {', '.join(str(first + number) for number in range(order.draws))}"


def _rates(order: Order) -> str:
    """Of each method; model by model where they differ, as with the paper's settings."""
    of_model = {
        model: ", ".join(
            f"{v.name} {results_of(file).lr:g}"
            for v in order.variants
            for file in _run(order, model, v)
        )
        for model in order.models
    }
    if len(set(of_model.values())) == 1:
        return next(iter(of_model.values()))
    return "; ".join(f"{model}: {rates}" for model, rates in of_model.items() if rates)


def _run(order: Order, model: str, variant: Variant) -> list[Path]:
    """The finished run of a variant, of the first draw, where there is one."""
    folder = order.runs(model, variant)[0].folder(order.out)
    return [folder] if (folder / outputs.MANIFEST).exists() else []
