"""One cell of the field: train, measure on development images, read the test sets."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from evidence.measure import SHARES, DevelopmentImages, development, development_images, read_test
from evidence.methods import METHODS, passes_per_image
from evidence.rows import END, SELECTED, WISE, Answers, Cell, Development, Passes, Row, digest
from evidence.sources import Source
from evidence.work import BATCH, Outcome, Work, autocast, counting
from refocus import load
from refocus.tuning.checks import interpolate
from refocus.tuning.loop import Diverged
from refocus.vit.loading import weights_digest

State = dict[str, Tensor]
# images that go forward in training, for each step of `refocus`; None: the steps are given
BUDGETS: Mapping[str, int | None] = {"steps": None, "passes": 4, "long": 16}


@dataclass(frozen=True)
class Place:
    """A data set on this machine and the base models that were trained on it."""

    source: Source
    models: tuple[Path, ...]
    early: tuple[Path, ...]

    def model(self, draw: int) -> Path:
        """Base models take turns over the draws."""
        return self.models[draw % len(self.models)]


@dataclass(frozen=True)
class Field:
    """What all cells share."""

    out: Path
    places: Mapping[str, Place]
    steps: int
    precision: str
    _images: dict[str, DevelopmentImages] = dataclasses.field(default_factory=dict)
    _bases: dict[str, list[Development]] = dataclasses.field(default_factory=dict)

    @property
    def rows(self) -> Path:
        """One line a cell."""
        return self.out / "rows.jsonl"

    def development_images(self, data: str, model: nn.Module) -> DevelopmentImages:
        """Made once for all cells: the base models of a data set see images alike."""
        if data not in self._images:
            self._images[data] = development_images(model, self.places[data].source)
        return self._images[data]

    def base_development(self, row: Row, model: nn.Module) -> list[Development]:
        """Of the base model, measured once; `model` has its weights."""
        if row.model not in self._bases:
            state = model.state_dict()
            images = self.development_images(row.cell.data, model)
            self._bases[row.model] = development(model, images, (state, state), SHARES[:1])
        return self._bases[row.model]


def run(cell: Cell, field: Field, readings: Sequence[str]) -> Row:
    """Train, measure on development images, and in a final cell read the test sets."""
    place, method = field.places[cell.data], METHODS[cell.method]
    base = load(place.model(cell.draw))
    work = _work(cell, field)
    start = {name: value.clone() for name, value in base.state_dict().items()}
    settings = _settings(cell, work, field)
    begun = time.perf_counter(), time.process_time()
    with counting(base) as counted:
        try:
            made = method.run(work)
        except Diverged as error:
            made = Outcome(start, [], [], 0, 0, {"diverged": str(error)})
    seconds, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    row = Row(
        cell=cell,
        model=weights_digest(base),
        settings=settings,
        used=digest(made.used),
        used_count=len(made.used),
        trained=made.trained,
        steps=made.steps,
        passes=Passes(settings["per_image"], made.batched, counted.trained, counted.all),
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu, 2),
        development=[],
        notes=made.notes,
    )
    if "diverged" not in made.notes:
        row = _measured(row, base, (start, made.weights), field, readings)
    shutil.rmtree(work.folder, ignore_errors=True)
    return row


def _settings(cell: Cell, work: Work, field: Field) -> dict[str, object]:
    method = METHODS[cell.method]
    return {
        "steps": work.steps,
        "batch": BATCH,
        "precision": field.precision,
        "per_image": passes_of(cell.method, work.model),
        "recipe": dict(method.recipe),
        "labels": method.labels,
        "model": work.model.name,
    }


def _work(cell: Cell, field: Field) -> Work:
    place = field.places[cell.data]
    return Work(
        model=place.model(cell.draw),
        source=place.source,
        images=cell.images,
        half=cell.classes == "half",
        seed=cell.draw,
        steps=steps_for(cell, field),
        rate=cell.rate,
        precision=field.precision,
        folder=field.out / "runs" / name_of(cell),
        early=place.early[cell.draw % len(place.early)] if place.early else None,
    )


@cache
def passes_of(name: str, model: Path) -> int:
    return passes_per_image(METHODS[name], load(model))


def name_of(cell: Cell) -> str:
    """A folder for the run of a cell."""
    return "-".join(str(value) for value in asdict(cell).values())


def steps_for(cell: Cell, field: Field) -> int:
    """Steps with which a cell has its budget."""
    passes = BUDGETS[cell.budget]
    if passes is None:
        return field.steps
    each = max(1, passes_of(cell.method, field.places[cell.data].model(cell.draw)))
    return max(1, round(field.steps * passes / each))


def _measured(
    row: Row, model: nn.Module, line: tuple[State, State], field: Field, readings: Sequence[str]
) -> Row:
    """Development accuracy on the line to the trained weights, and the tests of a final cell."""
    with autocast(field.precision):
        found = field.base_development(row, model)
        shares = {END: 0.0}
        if row.cell.method != "base":
            images = field.development_images(row.cell.data, model)
            found = [*found, *development(model, images, line, SHARES[1:])]
            best = max(found, key=lambda d: (d.score, -d.share)).share
            shares = {END: 1.0, WISE: 0.5, SELECTED: best}
        row = replace(row, development=found, shares=shares)
        if row.cell.phase != "final":
            return row
        wanted = {name: shares[name] for name in readings}
        source = field.places[row.cell.data].source
        return replace(row, tests=_tests(model, source, line, wanted))


def _tests(
    model: nn.Module, source: Source, line: tuple[State, State], wanted: Mapping[str, float]
) -> dict[str, Answers]:
    """Every test set at the share of each reading; a share that two have in common is read once."""
    found: dict[str, Answers] = {}
    for share in sorted(set(wanted.values())):
        model.load_state_dict(interpolate(*line, share))
        names = [name for name, at in wanted.items() if at == share]
        for test in source.kind.tests:
            now = read_test(model, source.test(test), names)
            found[test] = replace(now, right={**found.get(test, now).right, **now.right})
    return found
