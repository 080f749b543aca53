"""Results of probes -> the table, the page "probes" and its curves.

Every probe that lies in the folder is on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from refocus import outputs
from refocus.errors import InputError
from refocus.figures.charts import Chart, both, svg_uri
from refocus.figures.glossary import words
from refocus.figures.html import jpeg_uri, page
from refocus.figures.tables import Row, as_csv, markdown
from refocus.files import write_bytes, write_text
from refocus.probes import curves, pictures
from refocus.probes.registry import PROBES
from refocus.probes.results import FILE, MODEL, ProbeResult, read

PAGE = "probes.html"
_WIDTH = 900  # pixels of an example on the page


@dataclass(frozen=True)
class Section:
    """What the page says of one probe.

    small, example: data URIs or empty. records: the model's files of one line per image; a probe
    that reads results of other commands has none.
    """

    name: str
    result: ProbeResult
    row: Row
    curve: Chart
    small: str
    example: str
    records: list[str]

    @property
    def of_models(self) -> bool:
        """Whether its numbers are means over models in place of images."""
        return PROBES[self.name].found is not None

    @property
    def n(self) -> int:
        """Images, or the models that the number is the mean of."""
        numbers = self.result.numbers
        return numbers.headline.model.n if self.of_models else numbers.model.n

    @property
    def improved(self) -> int:
        """1 or -1 where the change, as it is shown, is decided for the better or worse, else 0."""
        return self.row.decided * (1 if self.result.better else -1)


def results(folder: Path) -> dict[str, ProbeResult]:
    """The complete probes of a folder, in the order of the table.

    Raises:
        InputError: there is none.
    """
    found = {
        name: read(folder / name / FILE)
        for name in PROBES
        if (folder / name / outputs.MANIFEST).exists()
    }
    if not found:
        raise InputError(f"{folder}: holds no complete probe; `refocus probe` makes them")
    return found


def row(result: ProbeResult) -> Row:
    """The headline as a row of the table."""
    digits = 1 if result.in_percent else 2
    return Row(result.kind, result.unit, result.numbers.headline, digits=digits)


def write(folder: Path) -> list[Row]:
    """Write probes.html, probes.md and probes.csv, and curve.png beside each result.

    Returns:
        The rows of the table.
    """
    every = results(folder)
    paired = any(result.numbers.against is not None for result in every.values())
    labels = {"model": "tuned" if paired else "model", "against": "original"}
    sections = [_section(folder, result, labels) for result in every.values()]
    rows = [section.row for section in sections]
    models = next(iter(every.values())).models
    html = page(
        "probes.html.j2",
        sections=sections,
        verdict=_verdict(sections, paired=paired),
        models=models,
        labels=labels,
        paired=paired,
        words=words("probe", "accuracy (top-1)", "95 % interval"),
    )
    for file, text in ((PAGE, html), ("probes.md", markdown(rows)), ("probes.csv", as_csv(rows))):
        write_text(folder / file, text)
    return rows


def _verdict(sections: list[Section], *, paired: bool) -> str:
    """How many probes changed for the better and for the worse, in one sentence."""
    if not paired:
        return f"{len(sections)} robustness tests of one model"
    better = [s.name for s in sections if s.improved > 0]
    worse = [s.name for s in sections if s.improved < 0]
    if not better and not worse:
        return f"None of the {len(sections)} robustness tests shows a change beyond chance"
    parts = [
        f"{len(found)} of {len(sections)} robustness tests {'is' if len(found) == 1 else 'are'} "
        f"{word} after tuning ({', '.join(found)})"
        for word, found in (("better", better), ("worse", worse))
        if found
    ]
    if len(sections) > 1:
        parts.append("each is judged at 5 % by itself, so that one in twenty may be chance")
    return "; ".join(parts)


def _section(folder: Path, result: ProbeResult, labels: dict[str, str]) -> Section:
    write_bytes(folder / result.kind / "curve.png", curves.png(curves.curve(result, labels)))
    example = folder / result.kind / pictures.FILE
    small = curves.thumbnail(result, PROBES[result.kind].headline)
    return Section(
        result.kind,
        result,
        row(result),
        curve=both(lambda width: curves.curve(result, labels, width)),
        small=svg_uri(small),
        example=_small(example) if example.exists() else "",
        records=sorted(p.name for p in (folder / result.kind).glob(f"{MODEL}*.jsonl")),
    )


def _small(path: Path) -> str:
    """A picture as a data URI that does not make the page heavy; the whole one lies beside it."""
    with Image.open(path) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((_WIDTH, 3 * _WIDTH))
    return jpeg_uri(shown, quality=80)
