"""Linear heads on features, and what excites a unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refocus.errors import InputError
from refocus.probes import features, left_out, measure
from refocus.probes.material import Material
from refocus.probes.registry import PROBES
from refocus.probes.results import Counting, Level, Numbers, ProbeResult
from refocus.probes.settings import ProbeSettings
from refocus.probes.tools import linear
from refocus.records import ProbeRecord
from refocus.relevance.answers import last_linear_input
from tests.makers import Build, make_images
from tests.probes.makers import batch
from tests.zoo import ZOO


def _rows(column: str, values: np.ndarray, labels: list[int]) -> list[ProbeRecord]:
    return [
        ProbeRecord(f"{at}", {column: tuple(map(float, row)), "label": (float(label),)})
        for at, (row, label) in enumerate(zip(values, labels, strict=True))
    ]


def test_transfer_reads_what_the_classifier_reads(tiny: Build) -> None:
    b = batch(tiny(), 5)
    found = features.transfer_features(b)
    with torch.no_grad():
        expected = last_linear_input(b.model, b.normalized(b.pixels))[1]
    torch.testing.assert_close(found["features"], expected)
    assert found["label"][:, 0].tolist() == b.labels.tolist()


def test_each_block_has_a_head_and_all_have_one_together() -> None:
    rng, labels = np.random.default_rng(0), np.arange(30) % 3
    noise, signal = rng.normal(size=(30, 2)), np.eye(3)[labels] + 0.1 * rng.normal(size=(30, 3))
    rows = [
        ProbeRecord(f"{at}", {"1": tuple(a), "2": tuple(b), "label": (float(label),)})
        for at, (a, b, label) in enumerate(zip(noise, signal, labels, strict=True))
    ]
    found = np.array([row.values["linear head"] for row in features.block_answers(rows, 0)])
    assert found.shape == (30, 3)
    assert found[:, 0].mean() < 0.6
    assert found[:, 1].mean() == 1
    together = linear.held_out(np.hstack([noise, signal]), labels)
    assert np.array_equal(found[:, 2], together)


def test_how_a_model_numbers_its_classes_decides_nothing() -> None:
    rng, labels = np.random.default_rng(0), np.arange(31) % 4
    values = rng.normal(size=(31, 3)) + 0.5 * np.eye(4)[labels][:, :3]
    both = [
        features.block_answers(
            [
                ProbeRecord(f"{at}", {"1": tuple(row), "label": (float(label),)})
                for at, (row, label) in enumerate(zip(values, numbered, strict=True))
            ],
            0,
        )
        for numbered in (labels, np.array([7, 0, 3, 1])[labels])
    ]
    assert both[0] == both[1]


def test_a_unit_is_as_pure_as_the_images_that_excite_it_most() -> None:
    labels = [0] * 10 + [1] * 10
    selective = np.concatenate([np.arange(10) + 100, np.zeros(10)])
    mixed = np.tile([10.0, 0.0], 10) + np.arange(20) / 100
    activation = np.stack([selective, mixed, np.zeros(20)], axis=1)
    records = _rows("activation", activation, labels)
    units = features.unit_selectivity(records, 0)
    assert units[0].tolist() == [1, 1, 1, 10 / 16]
    top = [labels[at] for at in np.argsort(-mixed)[:8]]
    assert units[1][2] == max(top.count(0), top.count(1)) / 8
    assert np.isnan(units[2]).all()  # nothing excites it
    every = features.unit_numbers(records, np.full(20, True), 0)["strongest images"]
    assert every.tolist() == pytest.approx(units[:2].mean(0).tolist())
    few = features.unit_numbers(records, np.arange(20) < 10, 0)["strongest images"]
    assert few[:3].tolist() == [1, 1, 1]
    assert np.isnan(few[3])  # only 10 images


def test_units_that_cannot_tell_images_apart_are_of_no_class_however_images_are_listed() -> None:
    """As units at 0 for most images, and many in bfloat16."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(10), 20).tolist()
    few = (rng.random((200, 150)) < 0.02).astype(float)  # of 200 images 4 excite a unit, alike
    records = _rows("activation", few, labels)
    found = features.unit_numbers(records, np.full(200, True), 0)
    assert found["strongest images"] == pytest.approx(found["images at random"], abs=0.05)
    turned = [records[at] for at in rng.permutation(200)]
    other = features.unit_numbers(turned, np.full(200, True), 0)
    assert found["strongest images"] == pytest.approx(other["strongest images"], abs=0.05)
    pictured = features._strongest(few, features._drawn(few.shape, 0)[1])[:7]
    assert len({labels[at] for at in pictured.flatten()}) == 10  # of all classes, not the first


@pytest.mark.parametrize("name", ["block-heads", "transfer", "rotation"])
def test_the_seed_draws_folds_and_shots(name: str) -> None:
    rng, column = np.random.default_rng(0), "1" if name == "block-heads" else "features"
    rows = _rows(column, rng.normal(size=(30, 8)), [at % 3 for at in range(30)])
    after = PROBES[name].after
    assert after(rows, 0) == after(rows, 0) != after(rows, 1)


def test_the_seed_draws_the_images_at_random() -> None:
    rows, every = _excited(60, 12, 1.0, 0), np.full(60, True)
    one, other = (features.unit_numbers(rows, every, seed) for seed in (0, 1))
    assert one["images at random"].tolist() != other["images at random"].tolist()
    assert one["strongest images"].tolist() == other["strongest images"].tolist()


def _excited(images: int, units: int, strength: float, seed: int) -> list[ProbeRecord]:
    """Images of three classes; each unit is excited by one class more than by the others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    liked = np.random.default_rng(1).integers(0, 3, units)  # the same units whatever the images
    activation = rng.normal(size=(images, units)) + strength * (labels[:, None] == liked)
    return _rows("activation", activation, labels.tolist())


def _selectivity(*models: list[ProbeRecord]) -> Numbers:
    records = dict(zip(("model", "against"), models, strict=False))
    levels: dict[str, list[Level]] = {which: [2, 4, 8, 16] for which in records}
    counting = Counting(100.0, 0, ("strongest images",))
    return left_out.compared(records, levels, counting, left_out.LeftOut(features.unit_numbers))


def test_an_interval_of_units_holds_for_other_images() -> None:
    """Over units it would say nothing of other images, which all units share."""
    found = [_selectivity(_excited(60, 12, 1.0, seed)).headline.model for seed in range(60)]
    truth = np.mean([one.value for one in found])
    inside = [one.interval[0] <= truth <= one.interval[1] for one in found]
    assert np.mean(inside) > 0.85
    assert all(one.n == 60 for one in found)
    few = _selectivity(_excited(20, 5, 1.0, 0)).headline.model
    assert (few.n, few.interval) == (20, None)


def test_models_of_other_numbers_of_units_are_compared_by_their_images() -> None:
    weak, strong = _excited(60, 7, 0.0, 3), _excited(60, 12, 3.0, 3)
    found = _selectivity(strong, weak)
    change = found.headline.change
    assert change.n == 60
    assert change.difference == pytest.approx(
        found.headline.model.value - found.headline.against.value
    )
    assert 0 < change.interval[0] < change.difference < change.interval[1]
    same = _selectivity(strong, strong).headline.change
    assert (same.difference, same.interval) == (0, (0, 0))


def test_the_strongest_images_of_a_unit_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = make_images(tmp_path)
    files = sorted(images.glob("*/*.png"))
    activation = np.arange(len(files))[:, None] * [[1.0, -1.0]]
    rows = [
        ProbeRecord(f.relative_to(images).as_posix(), row.values)
        for f, row in zip(files, _rows("activation", activation, [0] * len(files)), strict=True)
    ]
    shown: list[list[str]] = []
    monkeypatch.setattr(features, "figure", lambda _rows, _t, captions, _p: shown.extend(captions))
    features.unit_pictures(rows, images, tmp_path / "p.png", 0)
    names = [f.parent.name for f in files]
    assert shown[0] == [f"unit 0: {names[-1]}", *names[-2:-8:-1]]
    assert shown[1] == [f"unit 1: {names[0]}", *names[1:7]]


@pytest.mark.parametrize("family", ["ViT", "ViT (transformers)", "ViT (torchvision)"])
def test_from_folders_to_numbers(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = next(iter(ZOO[family].values()))()
    monkeypatch.setattr(features, "_SHOWN", 1)  # pictures take longest
    monkeypatch.setattr(features, "_COLUMNS", 2)
    if family != "ViT":
        monkeypatch.setattr(measure.pictures, "write", lambda *_: None)
    images, _ = make_images(tmp_path / "own")
    other, _ = make_images(tmp_path / "other", ["x", "y"], count=3, seed=1)
    settings = ProbeSettings(outside=str(other), transfer=str(other), most=8, seed=5)
    material = Material(images, settings, {"model": "m"})

    seeds: set[int] = set()
    held_out = linear.held_out
    monkeypatch.setattr(
        linear, "held_out", lambda *a, seed, **k: (seeds.add(seed), held_out(*a, seed=seed, **k))[1]
    )

    def ran(name: str) -> ProbeResult:
        return measure.run(name, {"model": model}, material, tmp_path / "out")

    for name, n in (("block-heads", 8), ("transfer", 6), ("out-of-distribution", 14)):
        found = ran(name).numbers.model
        (points,) = list(found.series.values())[:1]
        assert found.n == n, name
        assert all(0 <= p.value <= 100 and p.interval for p in points), name
        if name != "out-of-distribution":
            assert seeds.pop() == 5
            assert not seeds
    units = ran("units").numbers.model
    assert units.n == 8
    assert units.levels == [2, 4, 8, 16]
    assert units.series["strongest images"][3].value is None  # only 8 images
    assert 50 <= units.series["strongest images"][0].value <= 100
    for name in ("out-of-distribution", "units") if family == "ViT" else ():
        with Image.open(tmp_path / "out" / name / "picture.png") as picture:
            assert min(picture.size) > 200
    outside = tmp_path / "out" / "out-of-distribution" / "model-outside.jsonl"
    assert len(outside.read_text().splitlines()) == 6
    before = outside.read_text()
    (tmp_path / "out" / "out-of-distribution" / "manifest.json").unlink()
    outside.write_text("".join(before.splitlines(keepends=True)[:2]))
    assert ran("out-of-distribution").numbers.model.n == 14
    assert outside.read_text() == before


def test_too_few_images_for_a_head_are_refused(tiny: Build, tmp_path: Path) -> None:
    images, _ = make_images(tmp_path)
    for name, settings in (
        ("block-heads", ProbeSettings(most=4)),
        ("transfer", ProbeSettings(transfer=str(images), most=4)),
    ):
        material = Material(images, settings)
        called = "transfer" if name == "transfer" else "images"
        with pytest.raises(
            InputError, match=f"{called} .*: 4 images of 4 classes are too few for a linear"
        ):
            material.parts(PROBES[name], tiny())


def test_all_leaves_out_a_head_where_there_are_too_few_images(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = make_images(tmp_path)
    few = Material(images, ProbeSettings(kinds=("all",), most=4))
    with caplog.at_level("INFO", logger="refocus"):
        assert measure._fitting(["block-heads", "cutout"], {"model": tiny()}, few) == ["cutout"]
    assert "block-heads is left out" in caplog.text
    named = Material(images, ProbeSettings(kinds=("all,block-heads",), most=4))
    assert measure._fitting(["block-heads"], {"model": tiny()}, named) == ["block-heads"]


def test_units_of_the_class_token(tiny: Build) -> None:
    b = batch(tiny(), 3, units="token")
    assert features.unit_activations(b)["activation"].shape == (3, 24)
    assert features.unit_activations(batch(b.model, 3))["activation"].shape == (3, 96)
