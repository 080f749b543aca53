"""Write docs/schema.md from the records that refocus writes: their fields, types and comments.

    python scripts/schema.py

A test holds the document to what this makes of the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from refocus import outputs, records, results
from refocus.flow import results as flow
from refocus.probes import results as probes
from refocus.studies import results as studies
from refocus.tuning import results as tuning

FILE = Path(__file__).parents[1] / "docs" / "schema.md"
INTRO = """\
# What refocus writes

Every number is written as JSON first; tables and pages are made from it. This page is generated
from the code (`python scripts/schema.py`), and a test holds it to the code.

- Types are Python's: a `tuple` is an array, a `dict` an object, `None` is `null`.
- `schema` says which version of this page a file follows. Files without it are from the first
  version of refocus; `refocus report` and the app still open them.
- In files about two models `model` is the one that is judged and `against` the one it is compared
  with, such as the one before tuning. A change is always `model` minus `against`, over the same
  images.
- Intervals are 95 %, as `[low, high]`. `null` stands where there is too little to say.
- Accuracies are in percent, their changes in percentage points, all else in the unit that is
  named. NaN is never written.
"""


@dataclass(frozen=True)
class Part:
    """A section: where it is written, what is said of it, the records it is made of."""

    title: str
    text: str
    kinds: tuple[type, ...]


PARTS = (
    Part(
        "results.json of `refocus evaluate`",
        "Also `RUN/proof/results.json`, which `refocus report RUN` writes.",
        (results.Evaluation,),
    ),
    Part(
        "results.json of `refocus tune`",
        "In the folder of the run, beside `model/`.",
        (tuning.TuneResults,),
    ),
    Part("audit.json", "Of `refocus audit`.", (results.Audit,)),
    Part("run.json of `refocus run`", "Beside its page, `index.html`.", (flow.RunResult,)),
    Part(
        "result.json of `refocus probe`",
        "In the folder of each probe, beside its records. This schema is 1.",
        (probes.ProbeResult,),
    ),
    Part(
        "NAME.json of `refocus study`",
        "In the folder of the studies, beside NAME.md, .csv, .tex and .html. This schema is 1; "
        "nothing in refocus reads these files. Files without a schema are from the first version.",
        (studies.StudyResults,),
    ),
    Part(
        "Records: one JSON line per image",
        "`records/SUITE/STAGE.WHICH.jsonl`, where WHICH is `model` or `against`. A stage is a "
        "protocol (`standard`, `paper`), a shift (`mixed-rand`, `size-050`), `maps`, or `cues`. "
        "Probes write `PROBE/WHICH.jsonl`. Lines are appended as images are answered, so an "
        "interrupted command resumes from them. Of two lines of one image the later counts. "
        "Each line ends with `sum`, its own checksum: a line that was changed by hand is refused. "
        "Lines without one are read, as earlier versions wrote them. "
        "`refocus.evaluate(..., records=FILE)` also writes `FILE.settings.json`, which says whose "
        "answers FILE holds.",
        (
            records.Prediction,
            records.MapRecord,
            records.CueDecision,
            records.ProbeRecord,
            records.Unreadable,
        ),
    ),
    Part(
        "manifest.json",
        "Written last by every command: where it lies, the folder is complete.",
        (outputs.Manifest,),
    ),
)


def text() -> str:
    """The whole document."""
    told: set[type] = set()
    parts = [INTRO]
    for part in PARTS:
        parts += [f"## {part.title}\n", textwrap.fill(part.text, 100) + "\n"]
        for kind in part.kinds:
            parts += [table(one) for one in _reached(kind) if one not in told]
            told |= set(_reached(kind))
    return "\n".join(parts)


def table(kind: type) -> str:
    """A record's name, what it is, and its fields."""
    about = (inspect.getdoc(kind) or "").split("\n\n", 1)[0].replace("\n", " ")
    comments = _comments(kind)
    lines = [f"### {kind.__name__}", "", about, "", "| field | type | meaning |", "|---|---|---|"]
    for field in fields(kind):
        typed = str(field.type).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{typed}` | {comments[field.name]} |")
    return "\n".join(lines) + "\n"


def _reached(kind: type) -> list[type]:
    """A record and all records in it, each once, in order."""
    found = [kind]
    for one in found:  # grows as it is read
        for hint in get_type_hints(one).values():
            found += [inner for inner in _records_in(hint) if inner not in found]
    return found


def _records_in(hint: Any) -> Iterator[type]:
    if is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in get_args(hint):
        yield from _records_in(inner)


def _comments(kind: type) -> dict[str, str]:
    """Field -> the comment behind it; a field without one is an error."""
    module = sys.modules[kind.__module__]
    assert isinstance(module, types.ModuleType)
    lines, start = inspect.getsourcelines(kind)
    body = ast.parse(textwrap.dedent("".join(lines))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            line = lines[node.end_lineno - 1] if node.end_lineno else ""
            comment = re.search(r"  # (.+)$", line.rstrip())
            if comment is None:
                raise SystemExit(
                    f"{kind.__module__}, line {start + node.lineno - 1}: {kind.__name__}."
                    f"{node.target.id} has no comment behind it that says what it means"
                )
            found[node.target.id] = comment[1].replace("|", "\\|")
    return found


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE}: written")
