"""Results of probes -> the table, the page "probes" and its curves.

Every probe that lies in the folder is on the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from refocus import outputs
from refocus.errors import InputError
from refocus.figures.html import data_uri, jpeg_uri, page
from refocus.figures.tables import Row, as_csv, markdown
from refocus.probes import curves
from refocus.probes.registry import PROBES
from refocus.results import Change, Compared, Estimate

PAGE = "probes.html"
_WIDTH = 900  # pixels of an example on the page


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """The complete probes of a folder, in the order of the table.

    Raises:
        InputError: there is none.
    """
    found = {
        name: outputs.read_json(folder / name / "result.json")
        for name in PROBES
        if (folder / name / outputs.MANIFEST).exists()
    }
    if not found:
        raise InputError(f"{folder}: holds no complete probe; `refocus probe` makes them")
    return found


def row(result: dict[str, Any]) -> Row:
    """The headline as a row of the table."""
    found = result["headline"]
    model, against, change = found["model"], found.get("against"), None
    n = model["n"]
    if against:
        interval = found["difference_interval"]
        change = Change(found["difference"], interval and tuple(interval), n)
    number = Compared(_estimate(model), _estimate(against) if against else None, change)
    return Row(result["kind"], result["unit"], number, digits=1 if "%" in result["unit"] else 2)


def _estimate(cell: dict[str, Any]) -> Estimate:
    return Estimate(cell["value"], cell["interval"] and tuple(cell["interval"]), cell["n"])


def write(folder: Path) -> list[Row]:
    """Write probes.html, probes.md and probes.csv, and curve.png beside each result.

    Returns the rows of the table.
    """
    every = results(folder)
    paired = any("against" in result["headline"] for result in every.values())
    labels = {"model": "tuned" if paired else "model", "against": "original"}
    rows = [row(result) for result in every.values()]
    sections = []
    for (name, result), line in zip(every.items(), rows, strict=True):
        picture = curves.curve(result, labels)
        outputs.write_bytes(folder / name / "curve.png", picture)
        example = folder / name / "picture.png"
        sections.append(
            {
                "name": name,
                "result": result,
                "row": line,
                "curve": data_uri(picture, "png"),
                "small": data_uri(curves.thumbnail(result, PROBES[name].headline), "png"),
                "example": _small(example) if example.exists() else "",
                "better": result["better"],
                "improved": line.decided * (1 if result["better"] else -1),
            }
        )
    models = next(iter(every.values()))["models"]
    html = page("probes.html.j2", sections=sections, models=models, labels=labels, paired=paired)
    for file, text in ((PAGE, html), ("probes.md", markdown(rows)), ("probes.csv", as_csv(rows))):
        outputs.write_text(folder / file, text)
    return rows


def _small(path: Path) -> str:
    """A picture as a data URI that does not make the page heavy.

    The whole one lies beside the result.
    """
    with Image.open(path) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((_WIDTH, 3 * _WIDTH))
    return jpeg_uri(shown, quality=80)
