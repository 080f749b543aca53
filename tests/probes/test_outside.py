"""Out-of-distribution detection against scikit-learn, and its intervals."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from refocus.errors import InputError
from refocus.probes import outside, pooled
from refocus.probes.batch import Batch
from refocus.probes.material import Material
from refocus.probes.registry import PROBES
from refocus.probes.results import Counting
from refocus.probes.settings import ProbeSettings
from refocus.records import ProbeRecord
from tests.makers import NAMES, Build, make_images
from tests.probes.makers import batch

LEVELS = list(outside.LEVELS)
COUNTING = Counting(100, 1, (outside.SOFTMAX,))


def _records(known: np.ndarray, strange: np.ndarray) -> list[ProbeRecord]:
    scores = [*((s, 0.0) for s in known), *((s, 1.0) for s in strange)]
    return [
        ProbeRecord(
            f"{at}",
            {outside.SOFTMAX: (float(s),), outside.ENERGY: (float(-s),), outside.GROUP: (group,)},
        )
        for at, (s, group) in enumerate(scores)
    ]


def _compared(**records: list[ProbeRecord]) -> pooled.Numbers:
    levels = dict.fromkeys(records, LEVELS)
    return pooled.compared(records, levels, COUNTING, outside.DETECTION)


def _drawn(known: int, strange: int, seed: int = 0, apart: float = 1.0) -> list[ProbeRecord]:
    rng = np.random.default_rng(seed)
    # rounded, so that there are ties within and across the folders
    return _records(rng.normal(apart, 1, known).round(1), rng.normal(0, 1, strange).round(1))


def test_both_scores_are_those_of_the_papers(tiny: Build) -> None:
    b: Batch = batch(tiny(), 5)
    found = outside.outside_scores(b)
    with torch.no_grad():
        logits = b.logits(b.pixels).double()
    shares = torch.sigmoid(found[outside.SOFTMAX][:, 0])
    torch.testing.assert_close(shares, logits.softmax(1).max(1).values)
    torch.testing.assert_close(found[outside.ENERGY][:, 0], logits.exp().sum(1).log())


def test_many_images_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    records = _drawn(40, 60)
    whole = _compared(model=records).headline.model
    rows, genuine = [], outside.detection

    def counted(columns: pooled.Columns, weights: np.ndarray) -> dict[str, np.ndarray]:
        rows.append(len(weights))
        return genuine(columns, weights)

    monkeypatch.setattr(pooled, "_COUNTS", 102 * 300)  # one more image of each group
    how = pooled.Pooled(counted, outside.GROUP)
    found = pooled.compared({"model": records}, {"model": LEVELS}, COUNTING, how).headline.model
    assert rows == [1, *[*[300] * 6, 200] * 2]
    assert found.value == whole.value
    assert found.interval == pytest.approx(whole.interval, abs=2)  # other draws of the same


def test_area_and_false_alarms_are_those_of_scikit_learn() -> None:
    records = _drawn(90, 130)
    scores = np.array([row.values[outside.SOFTMAX][0] for row in records])
    known = np.array([row.values[outside.GROUP][0] for row in records]) == 0
    alarms, recall, _ = roc_curve(known, scores, drop_intermediate=False)
    expected = [100 * alarms[recall >= 0.95].min(), 100 * roc_auc_score(known, scores)]
    points = _compared(model=records).model.series
    assert [p.value for p in points[outside.SOFTMAX]] == pytest.approx(expected)
    # the other way round
    assert points[outside.ENERGY][1].value == pytest.approx(100 - expected[1])
    assert points[outside.SOFTMAX][1].n == 220


def test_the_area_takes_no_table_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=60_000) for name in (outside.SOFTMAX, outside.ENERGY)}
    columns[outside.GROUP] = np.repeat([0.0, 1.0], 30_000)
    tracemalloc.start()  # all pairs would take 7 GB
    found = outside.detection(columns, np.ones((1, 60_000)))
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
    assert found[outside.SOFTMAX][0, 1] == pytest.approx(0.5, abs=0.01)


def test_images_that_count_twice_are_as_two_images() -> None:
    records = _drawn(20, 30)
    columns = {
        name: np.array([row.values[name][0] for row in records]) for name in records[0].values
    }
    weights = np.random.default_rng(0).integers(0, 3, size=(1, 50))
    found = outside.detection(columns, weights)
    twice = {name: np.repeat(column, weights[0]) for name, column in columns.items()}
    again = outside.detection(twice, np.ones((1, weights.sum())))
    for name, values in found.items():
        assert values == pytest.approx(again[name])


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    truth = 76.0  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for seed in range(40):
        low, high = _compared(model=_drawn(40, 60, seed)).headline.model.interval
        held += low < truth < high
    assert held >= 35  # of 40; at 95 % fewer than 35 come by chance in 1.4 % of the trials


def test_intervals_of_few_images_hold() -> None:
    """Of 30 images of each group that are mostly told apart; a bootstrap held 34 of 40 areas."""
    truths, held = (norm.sf(3 + norm.ppf(0.05)), norm.cdf(3 * 0.5**0.5)), np.zeros(2)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = _records(rng.normal(3, 1, 30), rng.normal(0, 1, 30))
        points = _compared(model=rows).model.series[outside.SOFTMAX]
        for at, truth in enumerate(truths):
            low, high = points[at].interval or (0, 0)
            held[at] += low < 100 * truth < high
    assert (held >= 37).all()


def test_few_images_that_are_all_told_apart_prove_little() -> None:
    found = _compared(model=_drawn(5, 50, apart=20)).headline.model
    assert found.value == 100
    low, high = found.interval or (0, 0)
    assert 40 < low < 100 * 0.025 ** (1 / 5) + 2  # as of 5 answers that are all right
    assert high == 100


def test_the_change_of_few_images_is_decided_by_swaps_as_well() -> None:
    rng = np.random.default_rng(0)
    known, strange = rng.normal(2, 1, 40), rng.normal(0, 1, 40)
    far = _compared(model=_records(known + 2, strange), against=_records(known, strange))
    change = far.headline.change
    assert change is not None
    assert change.p is not None
    assert change.p <= 0.002
    # other scales of the same order are no change
    same = _compared(model=_records(known, strange), against=_records(9 * known, 9 * strange))
    assert same.headline.change is not None
    assert same.headline.change.p == 1


def test_two_models_are_compared_on_the_same_draws() -> None:
    ours, theirs = _drawn(60, 60, apart=1.2), _drawn(60, 60)
    both = _compared(model=ours, against=theirs)
    change = both.headline.change
    assert change.difference == pytest.approx(
        both.headline.model.value - both.headline.against.value
    )
    assert _compared(model=ours, against=ours).headline.change.difference == 0
    low, high = change.interval
    assert low < change.difference < high
    assert high - low < sum(
        e.interval[1] - e.interval[0] for e in (both.headline.model, both.headline.against)
    )


def test_images_of_the_models_classes_are_not_outside(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = make_images(tmp_path / "own")
    other, _ = make_images(tmp_path / "other", NAMES[:1])
    row, model = PROBES["out-of-distribution"], tiny()
    for place in (images, images / NAMES[0]):
        material = Material(images, ProbeSettings(outside=str(place)))
        with pytest.raises(InputError, match=r"are in images, .* none of the model's classes"):
            material.parts(row, model)
    Material(images, ProbeSettings(outside=str(other))).parts(row, model)
    assert f"called like classes of the model, {NAMES[0]} first" in caplog.text
    caplog.clear()
    strange, _ = make_images(tmp_path / "strange", ["something"])
    Material(images, ProbeSettings(outside=str(strange))).parts(row, model)
    assert "outside" not in caplog.text
