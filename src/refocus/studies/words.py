"""Numbers in sentences. Imports no torch."""

from __future__ import annotations


def plural(count: int, one: str, many: str) -> str:
    """A number and its noun: "1 class", "2 classes"."""
    return f"{count} {one if count == 1 else many}"


def signed(value: float) -> str:
    """A change with its sign and one decimal; one that rounds to 0 has none of its own: "+0.0"."""
    return f"{round(value, 1) + 0.0:+.1f}"
