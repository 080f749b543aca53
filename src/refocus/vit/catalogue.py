"""The table of families as a document, docs/models.md."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from refocus.errors import InputError
from refocus.files import of_the_disk, write_text
from refocus.vit.families import FAMILIES, REFUSED, Family


def markdown() -> str:
    """Which models are supported, one row a family, and which are refused and why."""
    text = files("refocus").joinpath("assets", "models.md").read_text(encoding="utf-8")
    rows = [_row(name, row) for name, row in FAMILIES.items()]
    return text.format(families="\n".join(rows), refused=refused())


def refused() -> str:
    """Families whose maps cannot be read, each with the reason."""
    return "; ".join(f"{name}* ({why})" for name, why in REFUSED.items())


def write(out: Path) -> None:
    """Write the document into a new file.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    if out.is_symlink() or out.exists():
        raise InputError(f"‹out› {out}: exists and is not overwritten; name a new file")
    try:
        write_text(out, markdown())
    except OSError as error:
        if of_the_disk(error):
            raise
        raise InputError(f"‹out› {out}: cannot be written ({error.strerror})") from error


def _row(name: str, row: Family) -> str:
    examples = ", ".join(f"`{e}`" for e in row.examples) or "a folder"
    classes = ", ".join(f"`{c}`" for c in row.classes)
    return f"| {name} | {row.library} | {classes} | {row.about} | {examples} |"
