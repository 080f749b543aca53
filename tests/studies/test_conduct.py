"""Every study from beginning to end on a tiny model."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from refocus import InputError
from refocus.cli import main
from refocus.records import from_json, to_json
from refocus.studies import conduct, datasets, registry
from refocus.studies.estimate import dry_run
from refocus.studies.jobs import Job
from refocus.studies.order import Order
from refocus.studies.results import StudyResults
from tests.makers import NAMES, make_images
from tests.studies.makers import RUN, only_imagenet, options

OWN = [name for name, row in registry.STUDIES.items() if row.layout != "claims"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_study_runs_on_a_users_own_images(place: Path, name: str) -> None:
    result = RUN.invoke(main.app, ["study", name, *options(place)])
    assert result.exit_code == 0, result.exception
    out = place / "out"
    content = json.loads((out / f"{name}.json").read_text())
    assert to_json(from_json(content, StudyResults, name)) == content  # nothing but what it holds
    assert content["schema"] == 1
    assert (out / f"{name}.html").read_text().startswith("<!doctype html>")
    row = registry.STUDIES[name]
    if row.layout in ("methods", "classes", "segmentation", "samples"):
        lines = content["lines"]
        assert lines
        assert all(0 <= line["number"]["value"] <= 100 for line in lines)
        assert {line["method"] for line in lines} > {"original"}
        assert (row.layout == "samples") == all(
            line["paper"] is None for line in lines if line["method"] != "original"
        )
        rows = list(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))
        assert [float(r["value"]) for r in rows] == [line["number"]["value"] for line in lines]
    elif row.layout == "per_class":
        assert {r["name"] for rows in content["classes"].values() for r in rows} == set(NAMES)
    elif row.layout == "subsets":
        (found,) = content["subsets"]
        assert found["pairs"] == sum(not r["predicted"] for r in found["rows"]) > 0
    elif name == "figure2":  # a tiny model may correct or spoil nothing, but it keeps answers
        assert "data:image/jpeg" in (out / f"{name}.html").read_text()


def test_a_study_continues_and_shares_its_runs(place: Path) -> None:
    assert RUN.invoke(main.app, ["study", "table1", *options(place)]).exit_code == 0
    out = place / "out"
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/**/manifest.json")}
    table = (out / "table1.md").read_text()
    (out / "table1.md").unlink()
    records = next(out.glob("records/*/finetune/natural.jsonl"))
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:5]) + lines[5][:10])  # as a killed process leaves it
    records.with_name("natural.done.json").unlink()
    assert RUN.invoke(main.app, ["study", "table1", *options(place)]).exit_code == 0
    assert (out / "table1.md").read_text() == table
    assert {p: p.stat().st_mtime_ns for p in out.glob("runs/**/manifest.json")} == before


def test_other_settings_need_another_folder(place: Path) -> None:
    assert RUN.invoke(main.app, ["study", "table3", *options(place)]).exit_code == 0
    result = RUN.invoke(main.app, ["study", "table3", *options(place, "--select", "last")])
    assert isinstance(result.exception, InputError)
    assert "holds studies with other settings" in str(result.exception)


@pytest.mark.slow
def test_links_in_its_folder_are_refused(place: Path, tmp_path: Path) -> None:
    """But for those to the halves of one ImageFolder, which the study itself makes."""
    images, masks = make_images(tmp_path / "flat", count=8)
    given = ["study", "figure6", "--on", images, "--model", place / "model", "--masks", masks]
    given += ["--shift", "mixed-rand", "--epochs", 1, "--out", tmp_path / "out"]
    assert RUN.invoke(main.app, [str(a) for a in given]).exit_code == 0
    assert RUN.invoke(main.app, [str(a) for a in given]).exit_code == 0
    for link in (tmp_path / "out" / "records" / "away", tmp_path / "out" / "split" / "away"):
        link.symlink_to(tmp_path / "flat")
        result = RUN.invoke(main.app, [str(a) for a in given])
        assert isinstance(result.exception, InputError)
        assert f"{link}: is a link" in str(result.exception)
        link.unlink()


ALONE: dict[str, str] = {}
TORCHRUN = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("said", [ALONE, TORCHRUN], ids=["two commands", "torchrun"])
def test_two_processes_share_the_runs(place: Path, tmp_path: Path, said: dict[str, str]) -> None:
    """Two commands given at once, or what torchrun sets in the environment: no run is done twice.

    Of those of torchrun the first makes the table, commands both do.
    """
    given = options(place, "--shift", "mixed-rand")
    given[given.index("--out") + 1] = str(tmp_path / "out")
    command = [sys.executable, "-m", "refocus.cli", "study", "table3", *given]
    env = {**os.environ, **said, "OMP_NUM_THREADS": "1"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if said else {} for rank in range(2)]
    found = [
        subprocess.Popen(command, env={**env, **rank}, stdout=subprocess.PIPE, text=True)
        for rank in ranks
    ]
    texts = [process.communicate(timeout=300)[0] for process in found]
    assert [process.returncode for process in found] == [0, 0]
    assert "published objective" in texts[0]
    assert texts[1] == ("" if said else texts[0])
    for file in (tmp_path / "out").glob("runs/model/*/history.jsonl"):
        assert len(file.read_text().splitlines()) == 1  # one epoch, by one process
    for file in (tmp_path / "out").glob("records/model/*/maps.jsonl"):
        images = [json.loads(line)["image"] for line in file.read_text().splitlines()]
        assert len(images) == len(set(images)) == 4
    assert not list((tmp_path / "out").rglob(".refocus-*"))  # no lock, nothing half-written


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((1e-6, 1e-6), "relevance 1e-06"),
        ((1e-6, 8e-7), "ViT-B: relevance 1e-06; DeiT-B: relevance 8e-07"),
    ],
)
def test_learning_rates_are_told_model_by_model_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...], said: str
) -> None:
    models = ["ViT-B", "DeiT-B"]
    for model in models:
        (tmp_path / "runs" / model / "relevance").mkdir(parents=True)
        (tmp_path / "runs" / model / "relevance" / "manifest.json").touch()
    order = SimpleNamespace(
        models=models,
        variants=[registry.ORIGINAL, registry.PUBLISHED],
        out=tmp_path,
        runs=lambda model, variant: [Job(model, variant)],
    )
    of = dict(zip(models, rates, strict=True))
    monkeypatch.setattr(
        conduct, "results_of", lambda folder: SimpleNamespace(lr=of[folder.parent.name])
    )
    assert conduct._rates(cast(Order, order)) == said


def test_a_dry_run_says_what_is_missing_and_how_long(toml: Path) -> None:
    row = registry.study("table1")
    ground = datasets.narrowed(datasets.read_toml(toml), ["ViT-B"])
    found = dry_run(Order("table1", row, ground, toml.parent / "out", {"epochs": 2}, True))
    there = {p.what: p.there for p in found.places}
    assert there == {
        "train": True,
        "masks (annotated)": True,
        "imagenet": True,
        "imagenet-a": False,
    }
    assert found.masks_not_named == ("unsupervised",)
    assert found.suites_not_named == (
        "imagenet-r",
        "imagenet-sketch",
        "imagenet-v2",
        "objectnet",
    )
    (model,) = found.models
    assert model.steps == 2 * 188 * model.runs  # 1500 images, batch 8
    assert model.images == (8 + 7_500) * (model.runs + 1)  # what is there, else as published
    assert model.gradients == 2 * model.runs  # one validation image is left at least
    assert model.hours > 0
    result = RUN.invoke(
        main.app, ["study", "table1", "--data", str(toml), "--models", "ViT-B", "--dry-run"]
    )
    assert result.exit_code == 0
    assert "MISSING" in result.stdout


def test_a_dry_run_counts_maps_subsets_and_validation_images(toml: Path) -> None:
    text = toml.read_text().replace("[suites]\n", '[suites]\nimagenet-segmentation = "no"\n')
    toml.write_text(text.replace("[suites]", 'val = "no"\nval_masks = "no"\n[suites]'))
    ground = datasets.narrowed(datasets.read_toml(toml), ["ViT-B"])
    cases: tuple[tuple[str, int, dict[str, int]], ...] = (
        ("figure1", 200, {}),
        ("appendix-a", 4 * 6 * 100, {}),
        # two runs, and the maps of these and of the original on the whole file
        ("table3", 2 * 414 * 5 + 3 * 4_276, {"epochs": 5, "classes": 1}),
    )
    for name, gradients, common in cases:
        row = registry.study(name)
        found = dry_run(Order(name, row, ground, toml.parent / "out", common, True))
        (model,) = found.models
        assert model.gradients == gradients, name
        assert model.hours > 0


@pytest.mark.slow
def test_claims_run_on_the_papers_layout(toml: Path) -> None:
    only_imagenet(toml)
    out = toml.parent / "out"
    command = [
        "study",
        "claims",
        "--data",
        str(toml),
        "--models",
        "ViT-B",
        "--out",
        str(out),
        "--epochs",
        "1",
        "--classes",
        "2",
    ]
    result = RUN.invoke(main.app, [*command, "--device", "cpu"])
    assert result.exit_code == 0, result.exception
    sheet = json.loads((out / "claims.json").read_text())["claims"]
    ran = [r for r in sheet if r["status"] != "not run"]
    # original, GradMask, RRR and the published objective on ImageNet, top-1 and top-5: 8 images
    # decide nothing, not even that a random model is none of the paper's
    assert {(r["dataset"], r["status"], r["n"]) for r in ran} == {("ImageNet", "not decided", 8)}
    assert len(ran) == 8
    assert all(r["ours"] is not None for r in ran)


def test_bad_input_is_named(toml: Path, place: Path) -> None:
    def refused(*given: str) -> str:
        result = RUN.invoke(main.app, ["study", *given])
        assert isinstance(result.exception, InputError), result.output
        return str(result.exception)

    assert "no such study; choose one of table1" in refused("table7", "--out", "x")
    assert "--data or --on" in refused("table1", "--out", "x")
    assert "--out: missing" in refused("table1", "--data", str(toml))
    for pair, said in (
        ("relevance=fast", "--lr relevance=fast: must be NAME=NUMBER"),
        ("relevance=0", "--lr relevance=0.0: must be a number above 0"),
        ("relevanse=1", "--lr relevanse=1: no such objective; choose one of relevance"),
    ):
        assert said in refused("table1", *options(place, "--lr", pair))
    assert "--shift outline: must be mixed-rand, location, rotation or size" in refused(
        "table1", *options(place, "--shift", "outline")
    )
    assert "study claims: is about the paper's own data sets" in refused("claims", *options(place))
    assert "--dry-run: is about the paper's own data sets" in refused(
        "table1", *options(place, "--dry-run")
    )
    fresh = place / "fresh"
    own = ["--on", str(place / "images"), "--model", str(place / "model"), "--out", str(fresh)]
    assert "--masks: missing" in refused("table1", *own)
    assert "--select first: must be best or last" in refused(
        "table1", *own, "--masks", str(place / "masks"), "--select", "first"
    )
    assert not fresh.exists()
    sets = ["--data", str(toml), "--models", "ViT-B", "--out", str(toml.parent / "o")]
    assert "does not name imagenet-segmentation" in refused("table3", *sets)
    assert "--data: [suites] imagenet-a=" in refused("figure10", *sets)
    toml.write_text(
        toml.read_text().replace('imagenet-a = "nowhere"', 'imagenet-segmentation = "no"')
    )
    assert "--data: [suites] imagenet-segmentation=" in refused("table3", *sets)
    within = ["--data", str(toml), "--models", "ViT-B", "--out"]
    for inside, named in (
        ("train-images/out", "[train] images"),
        ("train-masks", "[train] annotated"),
        ("imagenet-images/n", "[suites] imagenet"),
    ):
        out = str(toml.parent / inside)
        assert f"--out {out}: lies inside {named} of --data" in refused("table1", *within, out)
    assert "names none of those of study table2: si-location" in refused("table2", *sets)
    toml.write_text('[train]\nimages = "a"\n')
    assert "[train] needs masks: annotated or unsupervised" in refused(
        "table1", "--data", str(toml), "--out", "x"
    )
    toml.write_text('[train]\nimages = "a"\nmask = "b"\n')
    assert "unknown key 'mask' in [train]; choose one of images, annotated" in refused(
        "table1", "--data", str(toml), "--out", "x"
    )
    toml.write_text('[sets]\nimages = "a"\n')
    assert "unknown table [sets]" in refused("table1", "--data", str(toml), "--out", "x")
