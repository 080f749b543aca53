"""Names that others chose do nothing in a spreadsheet or a page."""

from __future__ import annotations

import csv
import io

import pytest

from refocus.figures.escape import harmless, inline
from refocus.figures.tables import Row, as_csv, markdown
from refocus.results import Compared, Estimate

FORMULAS = ("=HYPERLINK(1)", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("value", ["cat", "a=b", "-1.5", "+3", "1e-9", -2.5, None, ""])
def test_everything_else_stays(value: object) -> None:
    assert harmless(value) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b", "a \\| b"),
        ("[x](javascript:1)", "\\[x\\](javascript:1)"),
        ("a\n\n# b", "a # b"),
        ("`x`", "\\`x\\`"),
    ],
)
def test_markdown_is_one_line_of_plain_words(text: str, shown: str) -> None:
    assert inline(text) == shown


def test_tables_escape_the_names_in_them() -> None:
    rows = [Row("=1+1", "<b>", Compared(Estimate(50.0, (40.0, 60.0), 40)))]
    (_, line) = csv.reader(io.StringIO(as_csv(rows)))
    assert line[:2] == ["'=1+1", "<b>"]
    assert "&lt;b&gt;" in markdown(rows)
