"""A fair field: every method at its best rate, on the same images, for the same steps or passes.

    python -m evidence.field search --out OUT --data bar=ROOT --masks bar=MASKS --model bar=FOLDER
    python -m evidence.field final --out OUT (the same options)
    python -m evidence.field try --out OUT --methods consistency consistency-cold (the same options)

`search` tries four rates of each method, a factor 3 apart, and goes on beyond an end that is best.
It reads development images alone: training images held out, as they are and on the backgrounds of
other classes. `final` trains each method at its best rate on five draws and reads the test sets.
`try` reads the same images as `search`, of each method at its default rate (or --rate) alone: what
changes to an objective are chosen by.
One JSON line a cell in OUT/rows.jsonl; run again to go on after an interruption. docs/evidence.md
explains the choices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import timm.layers
import torch

from evidence.cell import BUDGETS, Field, Place, name_of, passes_of, run
from evidence.methods import METHODS
from evidence.rows import END, READINGS, Cell, Row, append, read
from evidence.sources import DATA, prepare
from refocus import InputError, locks
from refocus.records import drop_partial_line

SEARCH_DRAW = 1000  # apart from the draws of the final cells
_BEYOND = 2  # further rates that a search tries at either end


# --- the search -----------------------------------------------------------------------------------


def search(wanted: Iterable[Cell], field: Field) -> None:
    """Four rates of each method, and further ones while the best of a reading lies at an end."""
    for cell in wanted:
        method = METHODS[cell.method]
        first, last = -1, 2
        while True:
            tried = method.rates(first, last)
            for rate in tried:
                _do(replace(cell, rate=rate), field, ())
            best = {best_rate(read(field.rows), cell, reading) for reading in READINGS}
            lower = tried[0] in best and first > -1 - _BEYOND
            upper = tried[-1] in best and last < 2 + _BEYOND
            if not (lower or upper):
                break
            first, last = first - lower, last + upper


def best_rate(rows: Sequence[Row], cell: Cell, reading: str) -> float | None:
    """The rate with the best development score of a reading, the lower of two alike.

    Of the searched numbers of images a class the nearest to the cell's.
    """
    found = [r for r in rows if r.cell.phase == "search" and same_search(r.cell, cell)]
    scores = {
        (r.cell.images, r.cell.rate): score
        for r in found
        if (score := reading_score(r, reading)) is not None
    }
    if not scores:
        return None
    near = min(
        {images for images, _ in scores}, key=lambda n: abs((n or 1e9) - (cell.images or 1e9))
    )
    return max(
        (rate for images, rate in scores if images == near), key=lambda r: (scores[near, r], -r)
    )


def same_search(one: Cell, other: Cell) -> bool:
    """Whether two cells differ only in what a search varies, or in images a class or draw."""
    keys = ("data", "method", "budget", "classes")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def reading_score(row: Row, reading: str) -> float | None:
    """The development score at a reading's share; None where training diverged."""
    return next((d.score for d in row.development if d.share == row.shares[reading]), None)


def trial(wanted: Iterable[Cell], field: Field, fixed: float | None) -> None:
    """Each method at its default rate or the fixed one, on development images alone."""
    for cell in wanted:
        _do(replace(cell, rate=fixed or METHODS[cell.method].rate), field, ())


# --- the final cells ------------------------------------------------------------------------------


def final(
    wanted: Iterable[Cell],
    field: Field,
    searched: Sequence[Row],
    unsearched: Sequence[str] = (),
    fixed: float | None = None,
) -> None:
    """Each method at the best rate of each reading; the tests are read here and nowhere else.

    The `unsearched` take their own rate, what users get who change nothing, or the `fixed` one.
    """
    for cell in wanted:
        usual = cell.method in unsearched
        own = {METHODS[cell.method].rate if fixed is None else fixed: list(READINGS)}
        for rate, readings in (own if usual else readings_by_rate(cell, searched)).items():
            one = replace(cell, phase="final", rate=rate)
            if not usual:
                _refuse_second_look(read(field.rows), one, readings)
            _do(one, field, readings)


def readings_by_rate(cell: Cell, searched: Sequence[Row]) -> dict[float, list[str]]:
    """Which rate each reading is made at."""
    if cell.method == "base":
        return {0.0: [END]}
    found: dict[float, list[str]] = {}
    for reading in READINGS:
        rate = best_rate(searched, cell, reading)
        if rate is None:
            raise InputError(
                f"{cell.method} on {cell.data}, budget {cell.budget}: no rate was searched; run "
                "`search` with the same options first"
            )
        found.setdefault(rate, []).append(reading)
    return found


def _refuse_second_look(rows: Sequence[Row], cell: Cell, readings: Sequence[str]) -> None:
    """A rate that is searched again after the tests were read would be chosen by them.

    What was read at the usual rate, which is fixed without a search, chooses nothing.
    """
    for row in rows:
        same = replace(row.cell, rate=cell.rate) == cell
        if not same or row.cell.rate in (cell.rate, METHODS[cell.method].rate):
            continue
        again = {name for test in row.tests.values() for name in test.right} & set(readings)
        if again:
            raise InputError(
                f"{cell.method} on {cell.data}: {', '.join(sorted(again))} has been read at "
                f"rate {row.cell.rate:g}, and the search now says {cell.rate:g}; the tests are "
                "read once"
            )


def _do(cell: Cell, field: Field, readings: Sequence[str]) -> None:
    """One cell, unless its line is there."""
    if any(row.cell == cell for row in read(field.rows)):
        return
    row = run(cell, field, readings)
    append(field.rows, row)
    end = next((d for d in row.development if d.share == row.shares[END]), None)
    shown = "diverged" if end is None else f"{end.plain:.1f} / {end.swapped:.1f} on development"
    print(f"{name_of(cell)}: {shown}, {row.seconds:.0f} s", flush=True)


# --- the cells ------------------------------------------------------------------------------------


def cells(args: argparse.Namespace, field: Field) -> Iterator[Cell]:
    """What the options ask for, the cheapest budget first."""
    draws = [SEARCH_DRAW] if args.phase == "search" else args.draws
    if args.phase == "try":
        draws = [SEARCH_DRAW + draw for draw in draws]
    for budget in args.budgets:
        for data in field.places:
            for draw in draws:
                for name in args.methods:
                    yield from _of_method(name, data, budget, draw, args, field)


def _of_method(
    name: str, data: str, budget: str, draw: int, args: argparse.Namespace, field: Field
) -> Iterator[Cell]:
    method, place = METHODS[name], field.places[data]
    if method.labels == "groups" and not place.source.kind.groups:
        return
    if name == "base" and (args.phase != "final" or draw >= len(place.models)):
        return
    fixed = method.stepless or method.per_image == 0
    if budget != "steps" and (fixed or _same_as_steps(name, data, budget, field)):
        return
    for images in [0] if method.whole or name == "base" else args.images:
        classes = "all" if method.whole or name == "base" else args.classes
        yield Cell(args.phase, data, name, budget, images, classes, draw, 0.0)


def _same_as_steps(name: str, data: str, budget: str, field: Field) -> bool:
    return passes_of(name, field.places[data].model(0)) == BUDGETS[budget]


# --- the command ----------------------------------------------------------------------------------


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evidence.field",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("phase", choices=("search", "final", "try"))
    parser.add_argument("--out", type=Path, required=True)
    named = "NAME=FOLDER"
    parser.add_argument("--data", nargs="+", required=True, metavar=named, help="roots")
    parser.add_argument(
        "--masks", nargs="+", default=[], metavar=named, help="SPLIT/CLASS/FILE.png"
    )
    parser.add_argument(
        "--model", nargs="+", required=True, metavar=named, help="base models; several take turns"
    )
    parser.add_argument(
        "--early", nargs="+", default=[], metavar=named, help="base models after one epoch (JTT)"
    )
    usual = [name for name, method in METHODS.items() if not method.ablation]
    parser.add_argument("--methods", nargs="+", default=usual, choices=list(METHODS))
    parser.add_argument(
        "--images", nargs="+", type=int, default=[3, 10, 50], help="a class; 0: all"
    )
    parser.add_argument("--classes", default="all", choices=("all", "half"))
    parser.add_argument("--budgets", nargs="+", default=["steps", "passes"], choices=list(BUDGETS))
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--unsearched",
        nargs="+",
        default=[],
        choices=list(METHODS),
        metavar="METHOD",
        help="final: these take their default rate, whatever a search would say",
    )
    parser.add_argument(
        "--rate",
        type=float,
        help="final, try: the rate of the unsearched in place of their default",
    )
    parser.add_argument(
        "--searched", nargs="+", type=Path, default=[], help="rows.jsonl of searches made elsewhere"
    )
    return parser


def named(pairs: Sequence[str], option: str) -> dict[str, tuple[Path, ...]]:
    """NAME=FOLDER... by name."""
    found: dict[str, tuple[Path, ...]] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if name not in DATA or not folder:
            raise InputError(f"{option} {pair}: must be NAME=FOLDER; names are {', '.join(DATA)}")
        if not Path(folder).is_dir():
            raise InputError(f"{option} {pair}: no such folder")
        found[name] = (*found.get(name, ()), Path(folder).resolve())
    return found


def opened(args: argparse.Namespace) -> Field:
    """The field that the options describe."""
    roots, models = named(args.data, "--data"), named(args.model, "--model")
    masks, early = named(args.masks, "--masks"), named(args.early, "--early")
    if missing := set(roots) - set(models):
        raise InputError(f"--model: none for {', '.join(sorted(missing))}")
    if args.rate is not None:
        unsearched = args.phase == "final" and not set(args.methods) - {*args.unsearched}
        if not (unsearched or args.phase == "try"):
            raise InputError("--rate: only for `try`, and for `final` of --unsearched methods")
        if not args.rate > 0:
            raise InputError(f"--rate {args.rate:g}: must be above 0")
    args.out.mkdir(parents=True, exist_ok=True)
    locks.hold(args.out)  # two processes would run the same cells; --searched joins their rows
    drop_partial_line(args.out / "rows.jsonl")  # of a run that was killed while it wrote
    places = {
        name: Place(
            prepare(name, folders[0], masks.get(name, (None,))[0], args.out),
            models[name],
            early.get(name, ()),
        )
        for name, folders in roots.items()
    }
    return Field(args.out.resolve(), places, args.steps, args.precision)


@contextmanager
def attention_for(precision: str) -> Iterator[None]:
    """Plain attention in bf16: the fused one is slow on a CPU (docs/performance.md)."""
    before = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(before and precision != "bf16")
    try:
        yield
    finally:
        timm.layers.set_fused_attn(before)


def main(arguments: Sequence[str] | None = None) -> None:
    args = options().parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        with attention_for(args.precision), locks.released(args.out):
            field = opened(args)
            if args.phase == "search":
                search(cells(args, field), field)
            elif args.phase == "try":
                trial(cells(args, field), field, args.rate)
            else:
                elsewhere = [row for file in args.searched for row in read(file)]
                every = [*elsewhere, *read(field.rows)]
                final(cells(args, field), field, every, args.unsearched, args.rate)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
