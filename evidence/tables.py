"""Every table of the field in README.md and docs/results.md, from the rows that are committed.

    python -m evidence.tables                      write the tables anew (`make results`)
    python -m evidence.tables --check              say which are not what the rows give; status 1
    python -m evidence.tables --keep OUT/rows.jsonl...     add rows to results/field-DATA.jsonl.gz

A table stands between two comments: the first names the data set and what is shown of it, each
KEY=VALUE or KEY=VALUE,VALUE (a column more for each key with several values):

    <!-- table: bar images=3,10 budget=steps reading=selected -->
    <!-- end -->

Keys: images (0: whole pool), budget, reading, classes, methods (NAME:IMAGES: of so many alone),
against (what changes are measured from; default: the base model of the same draw), rates
(`default`: each method's usual rate, marked by a dagger; `searched`: the best on development
images, with a star where none was tried beyond; or a number); phase=try: what was tried on
development images (`evidence.tried`).
Numbers: top-1 in percent, the mean over draws; changes in points. Intervals: `evidence.intervals`.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np

from evidence import rows as files
from evidence.cell import BUDGETS
from evidence.field import best_rate, same_search
from evidence.intervals import Estimate, estimate, image_counts, lowest, per_draw
from evidence.methods import METHODS
from evidence.rows import END, READINGS, Answers, Cell, Row, unpack
from evidence.sources import DATA
from evidence.tried import PHASE, tried
from refocus import InputError

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "results"
DOCS = (ROOT / "README.md", ROOT / "docs" / "results.md")
EMPTY = "Not measured yet: no rows are committed."
_BLOCK = re.compile(r"(<!-- table: ([^>]*?) -->\n)(.*?)(?:^|\n)(<!-- end -->)", re.S | re.M)
_KEYS = ("images", "budget", "reading", "classes", "methods", "against", "rates", "phase")
_DEFAULT, _SEARCHED = "default", "searched"
_OF_DRAWS = ("of trained classes", "of other classes")
_WHOLE = 0.9  # of the declared passes, in a run that was not interrupted

_Key = tuple[str, int, str, str]  # method, images, budget, reading


@dataclass(frozen=True)
class Asked:
    """What a table shows."""

    data: str
    images: tuple[int, ...] = (3, 10, 50)
    budget: tuple[str, ...] = ("steps",)
    reading: tuple[str, ...] = READINGS
    classes: str = "all"
    methods: tuple[str, ...] = tuple(METHODS)
    against: str = "base"
    rates: str = _DEFAULT
    phase: str = "final"


@dataclass(frozen=True)
class Group:
    """The draws of one line of a table, by draw; `reading` is what is shown of them."""

    method: str
    images: int
    budget: str
    reading: str
    draws: dict[int, Row] = field(default_factory=dict)


# --- what is asked --------------------------------------------------------------------------------


def asked(text: str) -> Asked:
    """The first comment's words."""
    data, *pairs = text.split()
    if data not in DATA:
        raise InputError(f"table {text!r}: unknown data set; choose one of {', '.join(DATA)}")
    found = Asked(data)
    for pair in pairs:
        key, _, value = pair.partition("=")
        values = tuple(value.split(","))
        if key not in _KEYS or not value:
            raise InputError(
                f"table {text!r}: {pair}; choose one of {', '.join(_KEYS)}, each KEY=VALUE"
            )
        if key == "images":
            found = replace(found, images=tuple(int(v) for v in values))
        else:
            if key == "classes" and value not in ("all", "half"):
                raise InputError(f"table {text!r}: {pair}; choose one of all, half")
            if key == "rates" and value not in (_DEFAULT, _SEARCHED) and not _is_number(value):
                raise InputError(f"table {text!r}: {pair}; must be default, searched or a number")
            if key == "phase" and value not in ("final", PHASE):
                raise InputError(f"table {text!r}: {pair}; choose one of final, {PHASE}")
            single = key in ("classes", "against", "rates", "phase")
            found = replace(found, **{key: value if single else values})  # type: ignore[arg-type]
    return found


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def groups(rows: Iterable[Row], wanted: Asked) -> list[Group]:
    """The lines of a table, the base model first and then by accuracy where it matters most."""
    found = _by_line(rows, wanted)
    lines: dict[_Key, Group] = {}
    for named in wanted.methods:
        name, _, alone = named.partition(":")
        few = (int(alone),) if alone else wanted.images
        for images in (0,) if _whole(name) else few:
            for budget, reading in product(wanted.budget, wanted.reading):
                key = (name, images, budget, END if name == "base" else reading)
                if draws := _draws(found, *key):
                    lines.setdefault(
                        ("base", 0, "", "") if name == "base" else key, Group(*key, draws)
                    )
    main = DATA[wanted.data].worst[-1]
    return sorted(lines.values(), key=lambda g: (g.method != "base", -_plain(g, main)))


def _by_line(rows: Iterable[Row], wanted: Asked) -> dict[_Key, dict[int, Row]]:
    """The final rows of the data set by method, images, budget and reading, then by draw."""
    every = list(rows)
    searches = [r for r in every if r.cell.phase == "search"]
    found: dict[_Key, dict[int, Row]] = defaultdict(dict)
    for row in every:
        cell = row.cell
        fits = cell.classes == wanted.classes or _whole(cell.method)
        if cell.phase == "final" and cell.data == wanted.data and fits:
            for reading in {name for test in row.tests.values() for name in test.right}:
                if _at_rate(searches, cell, reading, wanted):
                    found[cell.method, cell.images, cell.budget, reading][cell.draw] = row
    return found


def _at_rate(searches: Sequence[Row], cell: Cell, reading: str, wanted: Asked) -> bool:
    """Whether a run is at the rate that a table shows its method at."""
    if cell.method == "base":
        return True
    if wanted.rates == _DEFAULT:
        return cell.rate == METHODS[cell.method].rate
    if wanted.rates == _SEARCHED:
        return cell.rate == best_rate(searches, cell, reading)
    return cell.rate == float(wanted.rates)


def _whole(name: str) -> bool:
    return METHODS[name].whole or name == "base"


def _draws(
    found: dict[_Key, dict[int, Row]], name: str, images: int, budget: str, reading: str
) -> dict[int, Row]:
    """A budget that is that of the equal steps has no rows of its own."""
    own = found.get((name, images, budget, reading))
    steps = found.get((name, images, "steps", reading), {})
    return own or {d: r for d, r in steps.items() if _same_budget(r, budget)}


def _same_budget(row: Row, budget: str) -> bool:
    fixed = METHODS[row.cell.method].stepless or METHODS[row.cell.method].per_image == 0
    return fixed or row.passes.per_image == BUDGETS[budget]


def _plain(group: Group, test: str) -> float:
    return mean(float(_bits(r.tests[test], group.reading).mean()) for r in group.draws.values())


# --- numbers --------------------------------------------------------------------------------------


def _bits(answers: Answers, reading: str) -> np.ndarray:
    return unpack(answers.right[reading], sum(answers.classes.values()))


def _folders(answers: Answers) -> np.ndarray:
    """The class folder of each image."""
    return np.repeat(list(answers.classes), list(answers.classes.values()))


Inside = Callable[[Row, Answers], np.ndarray]  # which images of a test count for a draw, `[n]`


def _everything(row: Row, answers: Answers) -> np.ndarray:
    return np.ones(sum(answers.classes.values()), dtype=bool)


def _values(group: Group, test: str, inside: Inside) -> np.ndarray:
    """Accuracy of each draw in each resample, `[R + 1, D]`, draws in their order."""
    rows = [group.draws[d] for d in sorted(group.draws)]
    tests = [r.tests[test] for r in rows]
    if len({a.files for a in tests}) > 1:
        raise InputError(f"{group.method} on {test}: its rows are of different test images")
    right = np.stack([_bits(a, group.reading) for a in tests]).astype(np.float32)
    kept = np.stack([inside(r, a) for r, a in zip(rows, tests, strict=True)])
    return per_draw(right, kept, image_counts(tests[0].files, right.shape[1]))


def _gap(group: Group, own: str, other: str) -> np.ndarray:
    """Points between objects on backgrounds of their own class and of others, `[R + 1, D]`."""
    gap: np.ndarray = _values(group, own, _everything) - _values(group, other, _everything)
    return gap


def _worst(group: Group, tests: Sequence[str]) -> np.ndarray:
    """The lowest accuracy of a class in any of the tests, `[R + 1, D]`."""
    first = next(iter(group.draws.values()))
    return lowest(
        [
            _values(group, test, lambda _, a, name=folder: _folders(a) == name)  # type: ignore[misc]
            for test in tests
            for folder in first.tests[test].classes
        ]
    )


def _trained(row: Row, answers: Answers) -> np.ndarray:
    return np.isin(_folders(answers), row.trained)


def _others(row: Row, answers: Answers) -> np.ndarray:
    return ~_trained(row, answers)


def measures(wanted: Asked) -> dict[str, Callable[[Group], np.ndarray]]:
    """The numbers of a table by the head of their column."""
    kind = DATA[wanted.data]
    found: dict[str, Callable[[Group], np.ndarray]] = {}
    for test in kind.tests:
        found[test.removeprefix("test_")] = lambda g, t=test: _values(g, t, _everything)  # type: ignore[misc]
    if kind.gap:
        found["BG-gap"] = lambda g: _gap(g, *kind.gap)
    if wanted.classes == "half":
        main = kind.worst[-1]
        trained, others = _OF_DRAWS
        found[trained] = lambda g: _values(g, main, _trained)
        found[others] = lambda g: _values(g, main, _others)
    found["worst group" if kind.groups else "worst class"] = lambda g: _worst(g, kind.worst)
    return found


def before(group: Group, every: Sequence[Row], wanted: Asked) -> tuple[Group, Group] | None:
    """A line and what it is compared with, over the draws that both have."""
    if group.method == wanted.against:
        return None
    if wanted.against != "base":
        few = wanted.images[0] if _whole(group.method) else group.images
        other = replace(wanted, methods=(wanted.against,), reading=(group.reading,))
        other = replace(other, images=(few,), budget=(group.budget,))
        (found,) = groups(every, other) or (None,)
        if found is None:
            return None
        common = sorted(group.draws.keys() & found.draws.keys())
        return _of(group, common), _of(found, common)
    bases = {r.model: r for r in every if r.cell.method == "base" and r.cell.data == wanted.data}
    if absent := [r.model for r in group.draws.values() if r.model not in bases]:
        raise InputError(f"{wanted.data}: no row of the base model {absent[0]}; run it as well")
    # with the classes of the draw, so that trained and other classes are the same for both
    own = {d: replace(bases[r.model], trained=r.trained) for d, r in group.draws.items()}
    return group, Group("base", 0, "steps", END, own)


def _of(group: Group, draws: Sequence[int]) -> Group:
    return replace(group, draws={d: group.draws[d] for d in draws})


# --- text -----------------------------------------------------------------------------------------


def table(rows: Sequence[Row], wanted: Asked) -> str:
    """A table as Markdown."""
    if wanted.phase == PHASE:
        found = tried(rows, wanted.data, wanted.methods, wanted.against, wanted.images)
        return found or EMPTY
    lines = groups(rows, wanted)
    if not lines:
        return EMPTY
    _same_images(lines)
    columns = measures(wanted)
    keys = [k for k in ("images", "budget", "reading") if len(getattr(wanted, k)) > 1]
    head = ["method", "uses", *keys, "rate", *columns, "passes", "CPU s", "draws"]
    text = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for group in lines:
        text.append(f"| {' | '.join(_line(group, rows, wanted, keys, columns))} |")
    return "\n".join(text)


def _same_images(lines: Sequence[Group]) -> None:
    """Methods that train on a few images must have had the same ones in the same draw."""
    used: dict[tuple[int, int], tuple[str, str]] = {}
    for group in (g for g in lines if not _whole(g.method)):
        for draw, row in group.draws.items():
            first, name = used.setdefault((group.images, draw), (row.used, group.method))
            if row.used != first:
                raise InputError(
                    f"{row.cell.data}, draw {draw}, {group.images} images a class: {group.method} "
                    f"and {name} trained on different images"
                )


def _line(
    group: Group,
    rows: Sequence[Row],
    wanted: Asked,
    keys: Sequence[str],
    columns: dict[str, Callable[[Group], np.ndarray]],
) -> list[str]:
    some = list(group.draws.values())
    base = group.method == "base"
    shown = {"images": str(group.images or "all"), "budget": group.budget, "reading": group.reading}
    cells = [group.method, "-" if base else METHODS[group.method].labels]
    cells += ["" if base else shown[key] for key in keys]
    cells.append("" if base else _rates(group, rows, wanted))
    pair = before(group, rows, wanted)
    for name, measure in columns.items():
        if base and name in _OF_DRAWS:  # a base model has seen all classes alike
            cells.append("")
            continue
        text = value_text(estimate(measure(group)), alone=pair is None)
        if pair is not None:
            text += " " + change_text(estimate(measure(pair[0]) - measure(pair[1])))
        cells.append(text)
    passes = mean(r.passes.training for r in some)
    return [*cells, f"{passes:.0f}", _seconds(some), str(len(some))]


def _seconds(rows: Sequence[Row]) -> str:
    """CPU seconds of a training run, without runs that went on after an interruption.

    Of these only the last part was clocked and counted. (A small last batch has fewer swaps, so
    that a whole run may count 6 % less than it declares.)
    """
    whole = [r.cpu_seconds for r in rows if r.passes.all >= _WHOLE * r.passes.training]
    return f"{mean(whole):.0f}" if whole else ""


def _rates(group: Group, rows: Sequence[Row], wanted: Asked) -> str:
    """The rates of a line: a dagger at the usual one, a star where none was tried beyond."""
    cell = next(iter(group.draws.values())).cell
    chosen = sorted({r.cell.rate for r in group.draws.values()})
    if wanted.rates != _SEARCHED:
        dagger = "†" if wanted.rates == _DEFAULT else ""
        return ", ".join(f"{rate:g}{dagger}" for rate in chosen)
    tried = {r.cell.rate for r in rows if r.cell.phase == "search" and same_search(r.cell, cell)}
    ends = {min(tried), max(tried)}
    return ", ".join(f"{rate:g}{'*' if rate in ends else ''}" for rate in chosen)


def value_text(found: Estimate, *, alone: bool) -> str:
    """A value in percent, with its interval where it is compared with nothing."""
    if math.isnan(found.value):
        return ""
    interval = f" [{max(0.0, found.low):.1f}, {min(100.0, found.high):.1f}]" if alone else ""
    return f"{found.value:.1f}{interval}"


def change_text(found: Estimate) -> str:
    """A change in points with its interval; none is larger than 100."""
    low, high = max(-100.0, found.low), min(100.0, found.high)
    return f"({found.value:+.1f}: {low:+.1f} to {high:+.1f})"


def rendered(text: str, rows: Sequence[Row]) -> str:
    """A document with its tables made anew."""
    return _BLOCK.sub(lambda m: f"{m[1]}{table(rows, asked(m[2]))}\n{m[4]}", text)


def stale(document: Path, rows: Sequence[Row]) -> list[str]:
    """The tables of a document that are not what the rows give."""
    return [
        m[2]
        for m in _BLOCK.finditer(document.read_text(encoding="utf-8"))
        if table(rows, asked(m[2])) != m[3]
    ]


# --- rows that are kept ---------------------------------------------------------------------------


def committed(folder: Path = ROWS) -> list[Row]:
    """All rows of the field that are kept in the project."""
    return list(files.every(sorted(folder.glob("field-*.jsonl.gz"))))


def keep(sources: Sequence[Path], folder: Path) -> None:
    """Add rows; a cell that is there already must be the same."""
    new: dict[str, list[Row]] = defaultdict(list)
    for row in files.every(sources):
        new[row.cell.data].append(row)
    for data, some in new.items():
        path = folder / f"field-{data}.jsonl.gz"
        every = {row.cell: row for row in (files.read(path) if path.exists() else [])}
        for row in some:
            if every.get(row.cell, row) != row:
                raise InputError(f"{path}: holds another row of {row.cell}; a cell is run once")
            every[row.cell] = row
        files.compress(every.values(), path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evidence.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", nargs="+", type=Path, default=[], metavar="ROWS")
    parser.add_argument("--rows", type=Path, default=ROWS, help="folder of field-DATA.jsonl.gz")
    parser.add_argument("--docs", nargs="+", type=Path, default=list(DOCS))
    args = parser.parse_args(arguments)
    try:
        keep(args.keep, args.rows)
        rows = committed(args.rows)
        old = [f"{doc}: {name}" for doc in args.docs for name in stale(doc, rows)]
        if args.check and old:
            raise SystemExit("not what the rows give: " + "; ".join(old))
        for document in [] if args.check else args.docs:
            text = document.read_text(encoding="utf-8")
            document.write_text(rendered(text, rows), encoding="utf-8")
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{len(rows)} rows; {len(old)} tables {'differ' if args.check else 'were changed'}")


if __name__ == "__main__":
    main()
