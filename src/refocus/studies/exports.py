"""What a study found as rows for a spreadsheet and for a paper: NAME.csv and NAME.tex."""

from __future__ import annotations

from typing import Any

from refocus.records import to_json
from refocus.studies.findings import Findings
from refocus.studies.writing import Table, csv_of, flat, table_of

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def as_csv(findings: Findings) -> str:
    """Every number in full precision, or the groups of a gallery."""
    return csv_of(rows_of(findings))


def as_latex(findings: Findings) -> str:
    """The table with the commands of the package booktabs."""
    head, *rows = (
        table_of(findings.lines) if findings.lines and not findings.text else _cells(findings)
    )
    lines = [r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\toprule", _row(head)]
    lines += [r"\midrule", *map(_row, rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def rows_of(findings: Findings) -> list[dict[str, Any]]:
    """One row a number; all have the same keys."""
    if findings.claims:
        return [to_json(claim) for claim in findings.claims]
    if findings.lines:
        return [flat(line) for line in findings.lines]
    if findings.classes:
        return [row for title in findings.classes for row in _classes(findings, title)]
    if findings.subsets:
        return [{"model": s.model, **to_json(row)} for s in findings.subsets for row in s.rows]
    if findings.salience:
        return [_salience(findings, number) for number in range(len(findings.salience))]
    return [{"images": group.title, "count": group.total} for group in findings.groups]


def _classes(findings: Findings, title: str) -> list[dict[str, Any]]:
    rows = []
    for row in findings.classes[title]:
        low, high = row.moved.interval or (None, None)
        rows.append(
            {
                "where": title,
                "class": row.name,
                "n": row.moved.n,
                "model": row.model,
                "against": row.against,
                "change": row.gain,
                "change_low": low,
                "change_high": high,
            }
        )
    return rows


def _salience(findings: Findings, number: int) -> dict[str, Any]:
    one = findings.salience[number]
    row: dict[str, Any] = {"model": one.model, "n": one.background.n, "sure": one.sure}
    for name, estimate in (("background", one.background), ("sparse", one.sparse)):
        low, high = estimate.interval or (None, None)
        row |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return row


def _cells(findings: Findings) -> Table:
    rows = rows_of(findings)
    head = list(rows[0]) if rows else ["images", "count"]
    return [head, *([_cell(row[key]) for key in head] for row in rows)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _row(cells: list[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(cell: str) -> str:
    text = "".join(_LATEX.get(letter, letter) for letter in cell.strip("*"))
    return rf"\emph{{{text}}}" if cell.startswith("*") and cell.endswith("*") else text
