"""Words that others wrote (names of files and classes), for readers that would act on them.

HTML pages escape by themselves: their templates are Jinja's, with autoescape.
"""

from __future__ import annotations

from html import escape
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet runs what begins so


def harmless(value: Any) -> Any:
    """A value for a cell of CSV.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, as OWASP advises;
    numbers stay numbers.
    """
    if not isinstance(value, str) or not value.lstrip(" ").startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def inline(text: str) -> str:
    """A text for one line of Markdown: no HTML, no link, no cell and no line of its own."""
    shown = escape(" ".join(text.split()), quote=False)
    for mark in ("\\", "|", "[", "]", "`"):
        shown = shown.replace(mark, f"\\{mark}")
    return shown
