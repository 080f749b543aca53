"""Every study from beginning to end on a tiny model; the tables' arithmetic; what the paper prints;
the sheet; the grid.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from typer.testing import CliRunner

from refocus import InputError
from refocus.cli import main
from refocus.records import Prediction
from refocus.studies import conduct, datasets, jobs, layouts, paper, registry
from refocus.tuning import presets
from refocus.vit import loading
from tests.makers import NAMES, make_images

OWN = [name for name, row in registry.STUDIES.items() if row.layout != "claims"]
RUN = CliRunner()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and images with masks as train/ and test/; all studies share one output folder,
    so runs are done once.
    """
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("study")
    args = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 4,
    }
    config = {"input_size": (3, 32, 32), "crop_pct": 1.0, "label_names": NAMES}
    loading.save(
        timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=config, **args),
        root / "model",
    )
    for part, count, seed in (("train", 12, 0), ("test", 3, 1)):
        images, masks = make_images(root / part, count=count, seed=seed)
        for kind, folder in (("images", images), ("masks", masks)):
            (root / kind).mkdir(exist_ok=True)
            folder.rename(root / kind / part)
    return root


def options(root: Path, *more: str) -> list[str]:
    base = [
        "--on",
        root / "images",
        "--model",
        root / "model",
        "--masks",
        root / "masks",
        "--automatic-masks",
        root / "masks",
    ]
    base += [
        "--out",
        root / "out",
        "--epochs",
        "1",
        "--most",
        "4",
        "--maps",
        "4",
        "--device",
        "cpu",
    ]
    return [*map(str, base), *more]


@pytest.mark.parametrize("name", OWN)
def test_every_study_runs_on_a_users_own_images(place: Path, name: str) -> None:
    result = RUN.invoke(main.app, ["study", name, *options(place)])
    assert result.exit_code == 0, result.exception
    out = place / "out"
    content = json.loads((out / f"{name}.json").read_text())
    assert (out / f"{name}.html").read_text().startswith("<!doctype html>")
    row = registry.STUDIES[name]
    if row.layout in ("methods", "seeds", "classes", "segmentation", "samples"):
        lines = content["lines"]
        assert lines
        assert all(0 <= line["value"] <= 100 for line in lines)
        assert {line["method"] for line in lines} > {"original"}
        assert (row.layout == "samples") == all(
            line["paper"] is None for line in lines if line["method"] != "original"
        )
        rows = list(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))
        assert [float(r["value"]) for r in rows] == [line["value"] for line in lines]
    elif row.layout == "per_class":
        assert {r["name"] for rows in content["classes"].values() for r in rows} == set(NAMES)
    elif row.layout == "subsets":
        assert (
            content["subsets"]["pairs"]
            == sum(not r["predicted"] for r in content["subsets"]["rows"])
            > 0
        )
    else:
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


def test_two_processes_share_the_runs(place: Path, tmp_path: Path) -> None:
    """What torchrun sets in the environment: each process does every other run, the first makes the
    table.
    """
    given = options(place, "--shift", "mixed-rand")
    given[given.index("--out") + 1] = str(tmp_path / "out")
    command = [sys.executable, "-m", "refocus.cli", "study", "table4", *given]
    env = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
        "OMP_NUM_THREADS": "1",
    }
    found = [
        subprocess.Popen(
            command,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    texts = [process.communicate(timeout=300)[0] for process in found]
    assert [process.returncode for process in found] == [0, 0]
    assert "without Eq. 1" in texts[0]
    assert texts[1].strip() == ""
    assert len(list((tmp_path / "out").glob("runs/model/*/manifest.json"))) == 5


def test_one_image_folder_is_split(place: Path, tmp_path: Path) -> None:
    images, masks = make_images(tmp_path / "flat", count=8)
    ground = datasets.own(
        images,
        str(place / "model"),
        loading.load(place / "model"),
        {"annotated": masks},
        tmp_path / "out",
        most=4,
        seed=0,
        kinds=(),
    )
    parts = [
        {p.name for p in (ground.train.parent / part / "ant").iterdir()}
        for part in ("train", "test")
    ]
    assert [len(part) for part in parts] == [4, 4]
    assert not parts[0] & parts[1]
    assert {p.stem for p in (ground.masks["annotated"] / "ant").iterdir()} == {
        Path(n).stem for n in parts[0]
    }


# --- arithmetic ---------------------------------------------------------------------------------


def prediction(image: str, label: int, guess: int) -> Prediction:
    return Prediction(image, label, (guess, 9), 0.9, 0.1)


def test_a_curve_counts_an_image_once() -> None:
    levels = {
        "a": [prediction("x", 0, 0), prediction("y", 1, 0)],
        "b": [prediction("x", 0, 1), prediction("y", 1, 0)],
    }
    assert layouts.by_image(levels, "top1") == {"x": 50.0, "y": 0.0}
    assert layouts.by_image(levels, "top1", frozenset({1})) == {"y": 0.0}
    found = layouts.compare({"x": 50.0, "y": 100.0}, {"x": 100.0, "y": 0.0})
    assert (found["n"], found["value"], found["change"]) == (2, 75.0, 25.0)


def test_seeds_have_a_mean_and_a_deviation(place: Path) -> None:
    RUN.invoke(main.app, ["study", "table8", *options(place)])
    lines = json.loads((place / "out" / "table8.json").read_text())["lines"]
    mean = next(x for x in lines if x["method"].endswith("3 seeds") and x["suite"] == "natural")
    name = next(p.name for p in (place / "out" / "records").iterdir())
    ground = datasets.Ground(
        {name: str(place / "model")}, place, {}, {"natural": place / "images" / "test"}, own=True
    )
    tops = []
    for variant in registry.SEEDS:
        found = jobs.answers(jobs.Job(name, variant), ground, "natural", place / "out")[""]
        tops.append(100 * sum(p.right for p in found) / len(found))
    assert mean["value"] == pytest.approx(sum(tops) / 3)
    assert mean["std"] == pytest.approx(torch.tensor(tops, dtype=torch.float64).std().item())


# --- the paper's numbers ------------------------------------------------------------------------


def test_the_papers_numbers_are_those_of_its_text() -> None:
    """Cells read by eye from the paper."""
    assert len(paper.cells()) == 1344
    assert paper.published(1, "ViT-B", "relevance", "objectnet") == 42.2
    assert paper.published(1, "ViT-B", "relevance", "objectnet", masks="unsupervised") == 40.8
    assert paper.published(1, "AR-L", "original", "imagenet-a", "top5") == 61.0
    assert paper.published(2, "DeiT-B", "gradmask", "si-location") == 34.1
    assert paper.published(3, "AR-L", "relevance", "imagenet-segmentation", "miou") == 61.0
    assert paper.published(4, "ViT-B", "no-classification", "imagenet") == 77.8
    assert paper.published(10, "AR-B", "relevance", "objectnet", classes="untrained") == 48.4
    assert paper.published(1, "ViT-L", "gradmask", "imagenet") is None


def test_the_papers_average_change_follows_from_its_rows() -> None:
    """+5.8 on ImageNet-A and +5.0 on ObjectNet with annotated masks (its Results)."""
    for suite, claimed in (("imagenet-a", 5.8), ("objectnet", 5.0)):
        changes = []
        for model in paper.MODELS:
            after, before = (
                paper.published(1, model, method, suite) for method in ("relevance", "original")
            )
            assert after is not None
            assert before is not None
            changes.append(after - before)
        assert sum(changes) / len(changes) == pytest.approx(claimed, abs=0.06)


def test_presets_are_tables_5_to_7() -> None:
    assert presets.preset("ViT-B")["lr"] == 3e-6
    assert presets.preset("DeiT-S", "gradmask-as-published") == {
        "model": "deit_small_patch16_224.fb_in1k", "lr": 5e-3, "temperature": 1.0,
        "weights": {"classification": 3e-9, "background": 50.0},
    }  # fmt: skip
    assert presets.preset("DeiT-B")["temperature"] == 0.65
    assert {row["timm"] for row in presets.presets().values() if "timm" in row} <= set(
        timm.list_pretrained()
    )
    with pytest.raises(InputError, match="no longer in timm"):
        presets.preset("ViT-L")
    assert presets.preset("ViT-L", model="mine")["model"] == "mine"
    with pytest.raises(InputError, match=r"no setting for --objective rrr.*it has relevance"):
        presets.preset("AR-L", "rrr")
    with pytest.raises(InputError, match=r"--preset ViT-X: unknown; legal are ViT-B"):
        presets.preset("ViT-X")


def test_the_papers_settings_reach_its_runs(tmp_path: Path) -> None:
    ground = datasets.Ground(
        {"DeiT-B": "x"},
        tmp_path,
        {"annotated": tmp_path},
        {},
        own=False,
        settings={"protocol": "paper"},
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


# --- the sheet and the data sets ----------------------------------------------------------------


def test_the_sheet_names_every_claim_and_judges_those_that_were_run() -> None:
    line = layouts.Line(
        "ViT-B", "published objective", "objectnet", "top1", 18574, 41.9, 41.2, 42.6
    )
    other = layouts.Line("ViT-B", "original", "objectnet", "top1", 18574, 38.0, 37.3, 38.7)
    titles = {"published objective": ("relevance", "annotated"), "original": ("original", "")}
    sheet = layouts.claims([line, other], titles)
    found = {(r["Dataset"], r["Model"], r["Metric"]): r for r in sheet}
    assert (
        len(sheet)
        == len(found)
        == sum(c.table <= 3 and c.model != "average" for c in paper.cells())
    )
    ours = found["ObjectNet", "ViT-B (Opt Relevance)", "Top-1 Accuracy"]
    assert (ours["Claimed"], ours["Ours"], ours["Status"]) == (42.2, 41.9, "verified")
    assert (
        found["ObjectNet", "ViT-B", "Top-1 Accuracy"]["Status"] == "not reproduced"
    )  # 35.1 claimed
    assert (
        found["ObjectNet", "ViT-B (Opt Relevance, automatic masks)", "Top-1 Accuracy"]["Status"]
        == "not run"
    )
    assert (
        layouts.sheet_text(sheet).splitlines()[0] == "Dataset\tModel\tMetric\tClaimed\tOurs\tStatus"
    )


@pytest.fixture
def toml(tmp_path: Path, place: Path) -> Path:
    """An ImageNet in miniature: synsets as folders, a random ViT of 1000 classes as ViT-B."""
    torch.manual_seed(0)
    synsets = ["n01440764", "n01443537", "n01484850", "n01491361"]
    for part, count in (("train", 4), ("imagenet", 2)):
        images, masks = make_images(tmp_path / part, synsets, count=count)
        images.rename(tmp_path / f"{part}-images")
        masks.rename(tmp_path / f"{part}-masks")
    args: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 1000,
    }
    config = {"input_size": (3, 32, 32), "crop_pct": 1.0}
    loading.save(
        timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=config, **args),
        tmp_path / "vit",
    )
    file = tmp_path / "data.toml"
    file.write_text(
        '[train]\nimages = "train-images"\nannotated = "train-masks"\n'
        '[suites]\nimagenet = "imagenet-images"\nimagenet-a = "nowhere"\n'
        f'[models]\nViT-B = "{tmp_path / "vit"}"\n'
    )
    return file


def test_a_dry_run_says_what_is_missing_and_how_long(toml: Path) -> None:
    row = registry.study("table1")
    ground = datasets.narrowed(datasets.read_toml(toml), ["ViT-B"])
    found = conduct.dry_run(
        conduct.Order("table1", row, ground, toml.parent / "out", {"epochs": 2}, True)
    )
    there = {p["what"]: p["there"] for p in found["places"]}
    assert there == {
        "train": True,
        "masks (annotated)": True,
        "imagenet": True,
        "imagenet-a": False,
    }
    assert found["masks not named"] == ["unsupervised"]
    assert found["suites not named"] == [
        "imagenet-r",
        "imagenet-sketch",
        "imagenet-v2",
        "objectnet",
    ]
    (model,) = found["models"]
    assert model["steps"] == 2 * 188 * model["runs"]  # 1500 images, batch 8
    assert model["images"] == 57_500 * (model["runs"] + 1)
    assert model["hours"] > 0
    result = RUN.invoke(
        main.app, ["study", "table1", "--data", str(toml), "--models", "ViT-B", "--dry-run"]
    )
    assert result.exit_code == 0
    assert "MISSING" in result.stdout


def test_claims_run_on_the_papers_layout(toml: Path) -> None:
    toml.write_text(toml.read_text().replace('imagenet-a = "nowhere"\n', ""))
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
    ran = [r for r in sheet if r["Status"] != "not run"]
    # original, GradMask, RRR and the published objective on ImageNet, top-1 and top-5: a random
    # model verifies nothing
    assert {(r["Dataset"], r["Status"]) for r in ran} == {("ImageNet", "not reproduced")}
    assert len(ran) == 8
    assert all(r["Ours"] is not None for r in ran)


def test_bad_input_is_named(toml: Path, place: Path) -> None:
    def refused(*given: str) -> str:
        result = RUN.invoke(main.app, ["study", *given])
        assert isinstance(result.exception, InputError), result.output
        return str(result.exception)

    assert "no such study; legal are table1" in refused("table7", "--out", "x")
    assert "--data or --on" in refused("table1", "--out", "x")
    assert "--out: missing" in refused("table1", "--data", str(toml))
    assert "--lr relevance=fast" in refused("table1", *options(place, "--lr", "relevance=fast"))
    assert "--shift outline: legal here are mixed-rand" in refused(
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
    assert "names none of those of study table2: si-location" in refused("table2", *sets)
    toml.write_text('[train]\nimages = "a"\n')
    assert "[train] needs masks: annotated or unsupervised" in refused(
        "table1", "--data", str(toml), "--out", "x"
    )
    toml.write_text('[train]\nimages = "a"\nmask = "b"\n')
    assert "unknown key 'mask' in [train]; legal are images, annotated" in refused(
        "table1", "--data", str(toml), "--out", "x"
    )
    toml.write_text('[sets]\nimages = "a"\n')
    assert "unknown table [sets]" in refused("table1", "--data", str(toml), "--out", "x")
