"""The runs of a study: seeds, and the paper's settings."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch

from refocus.cli import main
from refocus.studies import datasets, findings, jobs, registry, start, subset_study
from refocus.studies.order import Order
from refocus.studies.settings import StudySettings
from tests.studies.makers import RUN, options


def test_seeds_have_a_mean_and_a_deviation(place: Path) -> None:
    RUN.invoke(main.app, ["study", "table8", *options(place)])
    lines = json.loads((place / "out" / "table8.json").read_text())["lines"]
    mean = next(x for x in lines if x["draws"] == 3 and x["suite"] == "natural")
    name = next(p.name for p in (place / "out" / "records").iterdir())
    ground = datasets.Ground(
        {name: str(place / "model")}, place, {}, {"natural": place / "images" / "test"}, own=True
    )
    tops = []
    for variant in registry.draws_of(registry.study("table8"), registry.PUBLISHED, 3, 0):
        found = jobs.answers(jobs.Job(name, variant), ground, "natural", place / "out")[""]
        tops.append(100 * sum(p.right for p in found) / len(found))
    assert mean["number"]["value"] == pytest.approx(sum(tops) / 3)
    assert mean["spread"] == pytest.approx(torch.tensor(tops, dtype=torch.float64).std().item())


def test_subsets_are_of_a_suite_that_the_study_has(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the first that the file names: ImageNet-Segmentation has no classes."""
    text = toml.read_text().replace('imagenet = "imagenet-images"\nimagenet-a = "nowhere"', "")
    sets = 'imagenet-segmentation = "no"\nimagenet-v2 = "imagenet-images"\n'
    toml.write_text(text.replace("[suites]\n", f"[suites]\n{sets}"))
    ground = datasets.narrowed(datasets.read_toml(toml), ["ViT-B"])
    order = Order("appendix-a", registry.study("appendix-a"), ground, toml.parent, {}, True)
    asked = partial(subset_study.subset_study, images=1, labels=1, rounds=1)
    monkeypatch.setattr(subset_study, "subset_study", asked)
    (numbers,) = findings.find(order).subsets
    assert numbers.model == "ViT-B"


def test_the_papers_settings_reach_its_runs(tmp_path: Path) -> None:
    ground = datasets.Ground(
        {"DeiT-B": "x"},
        tmp_path,
        {"annotated": tmp_path},
        {},
        own=False,
        recipe={"protocol": "paper"},
    )
    published = jobs.recipe(jobs.Job("DeiT-B", registry.PUBLISHED), ground, {})
    assert (published.lr, published.temperature, published.protocol, published.do_no_harm) == (
        8e-7,
        0.65,
        "paper",
        False,
    )
    rrr = next(v for v in registry.BASELINES if v.name == "rrr-as-published")
    assert jobs.recipe(jobs.Job("DeiT-B", rrr), ground, {}).weights == {
        "classification": 2e-6,
        "background": 1e-10,
    }
    assert (
        jobs.recipe(jobs.Job("DeiT-B", rrr), ground, {"rates": {"rrr-as-published": 1e-3}}).lr
        == 1e-3
    )
    ablated = registry.ABLATIONS[0]
    assert jobs.recipe(jobs.Job("DeiT-B", ablated), ground, {}).weights == {"classification": 0.0}


@pytest.mark.parametrize(("own", "asked"), [(True, None), (True, "paper"), (False, "standard")])
def test_the_protocol_that_is_asked_for_tunes_and_measures(
    own: bool, asked: Literal["standard", "paper"] | None, tmp_path: Path
) -> None:
    if own:
        settings = StudySettings(on="i", model=("m",), masks="k", protocol=asked)
    else:
        settings = StudySettings(data="d.toml", protocol=asked)
    known = {} if own else {"protocol": "paper"}
    ground = datasets.Ground(
        {"own": "x"}, tmp_path, {"annotated": tmp_path}, {}, own=own, recipe=known
    )
    ground = start.measured_by(ground, settings)
    run = jobs.recipe(jobs.Job("own", registry.PUBLISHED), ground, settings.tuning)
    assert run.protocol == ground.protocol == (asked or "standard")
