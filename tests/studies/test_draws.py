"""Several draws of each row: their mean, deviation and interval, in every layout."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from refocus import InputError
from refocus.cli import main
from refocus.evaluation import maps
from refocus.records import MapRecord, Prediction
from refocus.results import AccuracyChange, Change, GroupChange
from refocus.studies import figures, findings, layouts, registry
from refocus.studies.jobs import Job
from refocus.studies.order import Order
from refocus.studies.registry import ORIGINAL, PUBLISHED
from tests.studies.makers import RUN, options


def test_draws_follow_the_seed_and_the_first_is_the_run_of_other_studies() -> None:
    table, classes = registry.study("table1"), registry.study("table8")
    drawn = registry.draws_of(table, registry.PUBLISHED, 3, 7)
    assert [v.name for v in drawn] == ["relevance", "relevance-seed8", "relevance-seed9"]
    assert [v.recipe.get("seed") for v in drawn] == [None, 8, 9]
    assert registry.draws_of(table, registry.ORIGINAL, 3, 7) == [registry.ORIGINAL]
    drawn = registry.draws_of(classes, registry.PUBLISHED, 2, 7)
    assert [v.recipe["class_seed"] for v in drawn] == [0, 1]


def test_the_mean_of_draws_has_their_deviation_and_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}" for i in range(80)]
    before = {name: 100.0 * (rng.random() < 0.5) for name in names}
    draws = [
        {name: 100.0 * (rng.random() < chance) for name in names} for chance in (0.4, 0.6, 0.8)
    ]
    found = layouts.compare(draws, before)
    means = [np.mean(list(draw.values())) for draw in draws]
    assert found.number.value == pytest.approx(np.mean(means))
    assert found.spread == pytest.approx(np.std(means, ddof=1))
    assert found.draws == 3
    alone = layouts.compare(draws[:1], before)
    assert alone.spread is None
    for one, many in ((alone.number, found.number), (alone.change, found.change)):
        assert one is not None
        assert many is not None
        assert one.interval is not None
        assert many.interval is not None
        assert np.ptp(many.interval) > 1.5 * np.ptp(one.interval)  # these draws differ a lot


def test_map_scores_of_draws_that_agree_are_those_of_one() -> None:
    """The jackknife's interval of one draw thrice is near the bootstrap's of that draw."""
    rng = np.random.default_rng(0)

    def records(shift: float) -> list[MapRecord]:
        rows = rng.random((200, 6)) * 0.2 + shift
        rows[:, 2] += 0.3  # the union is larger than its intersection
        rows[:, 4] += 0.3
        return [MapRecord(f"{i}", 0.5, 1.0, (1.0, *map(float, row))) for i, row in enumerate(rows)]

    one, before = records(0.3), records(0.2)
    for metric in ("pixel_accuracy", "miou", "map"):
        thrice = layouts.fits([one] * 3, before, metric)
        alone = maps.scores(one, before)[metric]
        assert thrice.spread == pytest.approx(0)
        assert thrice.number.value == pytest.approx(100 * (alone.model.value or 0))
        assert thrice.number.interval == pytest.approx(
            np.multiply(100, alone.model.interval or (0, 0)), abs=0.3
        )
        assert thrice.change is not None
        assert alone.change is not None
        assert thrice.change.difference == pytest.approx(100 * (alone.change.difference or 0))
        assert thrice.change.interval == pytest.approx(
            np.multiply(100, alone.change.interval or (0, 0)), abs=0.4
        )


def test_a_class_changes_by_the_mean_over_draws() -> None:
    before = [Prediction(f"{i}", i % 2, (i % 2, 9), 0.9) for i in range(8)]
    worse = [Prediction(f"{i}", i % 2, (i % 2 if i > 1 else 7, 9), 0.9) for i in range(8)]
    rows = figures.over_draws([{"": worse}, {"": before}], {"": before}, ["ant", "bee"])
    assert [(r.name, r.against, r.model, r.gain) for r in rows] == [
        ("ant", 100, 87.5, -12.5),
        ("bee", 100, 87.5, -12.5),
    ]
    assert rows[0].change.top1.n == 4


def test_the_levels_of_an_image_are_no_images_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def levels(right: int) -> dict[str, list[Prediction]]:
        return {
            f"{level:03d}": [Prediction(f"{i}", 0, (int(level >= right), 9), 0.9) for i in range(6)]
            for level in range(8)
        }

    answers = {ORIGINAL.name: levels(2), PUBLISHED.name: levels(6)}
    order = SimpleNamespace(
        models=("vit",),
        suites=("size",),
        out=Path("out"),
        answers=lambda job, _suite: answers[job.variant.name],
        runs=lambda model, variant: [Job(model, variant)],
    )
    loaded: list[Path] = []
    monkeypatch.setattr(figures, "load", loaded.append)
    monkeypatch.setattr(figures, "brief_names", lambda _model: ["ant"])
    (row,) = figures.class_changes(cast(Order, order))["vit: size"]
    assert (row.against, row.model, row.change.top1.n) == (25.0, 75.0, 6)
    # which carries names of classes where the original has none
    assert loaded == [Path("out/runs/vit/relevance/model")]


def test_the_text_names_each_class_once() -> None:
    def gain(number: int) -> GroupChange:
        change = Change(float(number), None, 4)
        return GroupChange(f"class{number:02d}", float(number), 0.0, AccuracyChange(change, change))

    for count, lines in ((4, 4), (10, 10), (11, 10)):
        text = findings._class_text({"vit: natural": [gain(n) for n in range(count, 0, -1)]})
        names = [line.split()[-1] for line in text.splitlines()[1:]]
        assert len(names) == len(set(names)) == lines


@pytest.mark.slow
def test_any_table_takes_seeds(place: Path) -> None:
    given = options(place, "--seeds", "2", "--shift", "mixed-rand")
    given[given.index("--out") + 1] = str(place / "draws")
    for name in ("table3", "figure10"):
        result = RUN.invoke(main.app, ["study", name, *given])
        assert result.exit_code == 0, result.exception
    content = json.loads((place / "draws" / "table3.json").read_text())
    tuned = [line for line in content["lines"] if line["method"] == "published objective"]
    assert [(line["draws"], line["number"]["n"]) for line in tuned] == [(2, 4)] * 3
    assert all(line["spread"] is not None for line in tuned)
    assert content["facts"]["draws"] == "seed 0, 1"
    assert "| published objective, 2 draws |" in (place / "draws" / "table3.md").read_text()
    runs = sorted(p.name for p in (place / "draws" / "runs" / "model").iterdir())
    assert runs == ["refocus", "refocus-seed1", "relevance", "relevance-seed1"]
    result = RUN.invoke(main.app, ["study", "figure2", *given])
    assert isinstance(result.exception, InputError)
    assert "--seeds 2: study figure2 shows images of one run" in str(result.exception)
