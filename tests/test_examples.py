"""The examples on a small part of the real data, with the real ViT.

docs/results.md has their full numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from refocus import Recipe, evaluate, load, outputs, tune
from refocus.demo import story
from refocus.evaluation.maps import Gtsegs
from refocus.evaluation.plan import SEGMENTS
from refocus.evaluation.suites import SUITES
from refocus.files import write_json
from refocus.studies.datasets import classes_with_masks, read_toml
from refocus.vit.classes import folder_names
from refocus.vit.loading import save
from tests.makers import Build, make_images
from tests.zoo import ZOO

EXAMPLES = Path(__file__).parents[1] / "examples"


def started(script: str, *arguments: object) -> tuple[int, str, str]:
    """Run an example in this process: exit status, what it printed, what it complained of."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", [script, *(str(a) for a in arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        except SystemExit as exit_:
            code = exit_.code
    return (code if isinstance(code, int) else 1), out.getvalue(), err.getvalue()


def run(script: str, *arguments: object) -> str:
    code, out, err = started(script, *arguments)
    assert code == 0, err
    return out


def part(source: Path, target: Path, per_class: int) -> None:
    """The first files of each class folder."""
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:per_class]:
            shutil.copy(file, target / folder.name / file.name)


@pytest.mark.slow
def test_planted(shared: Path, tmp_path: Path) -> None:
    for suite, count in (("tune", 3), ("test_same", 1), ("test_shuffled", 1)):
        for kind in ("images", "masks"):
            part(
                shared / "data" / "planted" / suite / kind, tmp_path / "data" / suite / kind, count
            )
    model = shared / "models" / "vit_small_planted"
    options = (
        "--draws",
        1,
        "--methods",
        "refocus:1e-5",
        "--epochs",
        1,
        "--val-images",
        2,
        "--check-images",
        2,
        "--maps",
        2,
    )
    shown = run(
        "planted.py",
        "--data",
        tmp_path / "data",
        "--model",
        model,
        "--out",
        tmp_path / "out",
        *options,
    )
    (row,) = (
        json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    )
    assert row["change"]["tuned"]["shuffled"]["n"] == 10
    assert row["before"]["same"] > 50  # of 10 images; 77 % of all 300
    assert {"tuned", "last", "kept"} == row["change"].keys()
    assert "| refocus, lr 1e-05 | tuned |" in shown
    again = run(
        "planted.py",
        "--data",
        tmp_path / "data",
        "--model",
        model,
        "--out",
        tmp_path / "out",
        *options,
    )
    assert again == shown  # the table alone, and nothing is computed twice


@pytest.mark.slow
def test_planted_without_the_rule_keeps_the_objectives_own_share(
    tiny: Build, tmp_path: Path
) -> None:
    names = [str(number) for number in range(6)]
    for suite in ("tune", "test_same", "test_shuffled"):
        make_images(tmp_path / "data" / suite, names, count=4)
    model = tiny(num_classes=6)
    model.pretrained_cfg["label_names"] = names
    save(model, tmp_path / "model")
    folders = (
        "--data",
        tmp_path / "data",
        "--model",
        tmp_path / "model",
        "--out",
        tmp_path / "out",
    )
    options = ("--draws", 1, "--epochs", 1, "--val-images", 2, "--maps", 2)
    run("planted.py", *folders, *options, "--methods", "refocus:1e-5", "--check-images", 4)
    rows = tmp_path / "out" / "rows.jsonl"
    before = rows.read_text()
    rest = ("--methods", "refocus:1e-2", "--check-images", 0, "--precision", "bf16")
    run("planted.py", *folders, *options, *rest)
    assert rows.read_text().startswith(before)
    second = json.loads(rows.read_text().splitlines()[1])
    assert second["kept_share"] == 0.5  # without the do-no-harm rule it is the objective's own
    assert second["kept"] != second["tuned"]


@pytest.mark.slow
def test_caltech100(shared: Path, tmp_path: Path) -> None:
    for suite, count in (("train", 4), ("val", 1), ("test", 1)):
        whole = tmp_path / "whole" / suite
        part(shared / "data" / "caltech100" / suite, whole, count)
        for folder in sorted(whole.iterdir())[:12]:
            for file in folder.iterdir():
                target = tmp_path / "data" / suite / folder.name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                file.rename(target)
                with Image.open(target) as image:
                    mask = np.zeros((image.height, image.width), np.uint8)
                mask[len(mask) // 4 : -len(mask) // 4, mask.shape[1] // 4 : -mask.shape[1] // 4] = (
                    255
                )
                path = tmp_path / "masks" / suite / folder.name / f"{file.stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
    model = shared / "models" / "vit_small_caltech100"
    options = (
        "--rows",
        "masks of other images",
        "--classes",
        3,
        "--epochs",
        1,
        "--val-images",
        2,
        "--check-images",
        2,
        "--maps",
        4,
    )
    folders = (
        "--data",
        tmp_path / "data",
        "--masks",
        tmp_path / "masks",
        "--out",
        tmp_path / "out",
    )
    shown = run("caltech100.py", *folders, "--model", model, *options)
    (row,) = (
        json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    )
    assert row["change"]["top1"]["n"] == 12
    assert row["finding"].startswith(("Keep the original", "Ship the tuned"))
    assert "| masks of other images |" in shown
    assert "| original |" in shown


@pytest.mark.slow
def test_a_miniature_has_the_papers_layout(tmp_path: Path) -> None:
    root = tmp_path / "mini"
    said = run("miniature.py", root, "--seeds", 1, "--images", 1, "--size", 32)
    assert said == f"written: {root / 'data.toml'}\n"
    ground = read_toml(root / "data.toml")
    model = load(ground.models["AR-B"])
    levels = {"si-location": 25, "si-rotation": 8, "si-size": 7}
    assert set(ground.suites) == {*SUITES, SEGMENTS}
    for name in SUITES:
        (tests,) = ground.tests(name, model).values()
        assert Counter(s.label for s in tests.samples) == dict.fromkeys(
            (99, 105, 150, 327, 334, 361, 407, 437, 470, 472), levels.get(name, 1)
        )
    answers = {p.top5[0] for p in evaluate(model, tests).predictions}
    assert answers <= {99, 105, 150, 327, 334, 361, 407, 437, 470, 472}
    assert len(Gtsegs(ground.suites[SEGMENTS], model).samples()) == 40
    assert classes_with_masks(ground) == 10


@pytest.mark.slow
def test_only_background(shared: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        part(shared / "data" / "planted" / "test_same" / kind, tmp_path / kind, 2)
    model = shared / "models" / "vit_small_planted"
    shown = run(
        "only_background.py",
        "--model",
        model,
        "--images",
        tmp_path / "images",
        "--masks",
        tmp_path / "masks",
        "--most",
        6,
    )
    assert len(shown.splitlines()) == 7
    assert all(
        0 <= float(line.split("top-1")[1].split("%")[0]) <= 100 for line in shown.splitlines()
    )


@pytest.mark.slow
def test_shares_of_the_way(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    settings = {
        "objective": "finetune",
        "lr": 3e-3,
        "epochs": 10,
        "classes": 4,
        "select": "last",
        "do_no_harm": False,
        "device": "cpu",
    }
    tune(
        Recipe(str(model_folder), str(images), str(masks), **settings),
        tmp_path / "run",
        progress=False,
    )
    images, _ = make_images(tmp_path / "others", count=15, seed=9)  # those of the run are left out
    shown = run(
        "shares.py", "--runs", tmp_path / "run", "--tests", f"own={images}", "--shares", 0.5, 1
    )
    rows = [line.split("|")[1:3] for line in shown.splitlines() if line.startswith("|")][2:]
    ends = (load(folder) for folder in (model_folder, tmp_path / "run" / "model"))
    before, after = (
        f"{100 * np.mean([p.right for p in evaluate(m, images).predictions]):.1f}" for m in ends
    )
    assert [row[0].strip() for row in rows] == ["0", "0.5", "1"]
    assert rows[0][1].strip() == before != after == rows[2][1].split(",")[0].strip()


def test_planted_shortcut(tiny: Build, tmp_path: Path) -> None:
    """Four classes of squares, each class on its own colour: two give objects, two backgrounds."""
    colours = {
        "ring": 40,
        "bar": 80,
        "cross": 120,
        "dot": 160,
    }  # of the background; the object is white
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    for name, colour in colours.items():
        for number in range(6):
            pixels = np.full((32, 32, 3), colour, np.uint8)
            pixels[mask > 0] = 255
            for kind, array in (("images", pixels), ("masks", mask)):
                path = tmp_path / kind / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    save(tiny(), tmp_path / "model")
    folders = (
        "--images",
        tmp_path / "images",
        "--masks",
        tmp_path / "masks",
        "--model",
        tmp_path / "model",
    )
    names = ("--objects", "ring", "dot", "--backgrounds", "cross", "bar", "--mask-score", 0)
    out = tmp_path / "set"
    run(
        "planted_shortcut.py",
        *folders,
        *names,
        "--out",
        out,
        "--epochs",
        1,
        "--gap",
        -100,
        "--share",
        0.75,
        "--opacity",
        0.5,
    )

    def grounds(suite: str, name: str) -> Counter[int]:
        """How often each class's background stands behind the composites.

        The colour of the corner, which no object reaches, to the nearest class.
        """
        corners = [
            int(np.asarray(Image.open(f))[0, 0, 0])
            for f in sorted((out / suite / "images" / name).iterdir())
        ]
        return Counter(
            min(colours.values(), key=lambda colour: abs(colour - corner)) for corner in corners
        )

    assert grounds("biased", "dot") == {
        80: 9,
        120: 3,
    }  # four objects three times, three quarters on their own
    assert grounds("biased", "ring") == {120: 9, 80: 3}
    assert grounds("tune", "dot") == {80: 4}  # 60 % of six, each once
    assert grounds("tune", "ring") == {120: 4}
    assert grounds("test_same", "dot") == {80: 6}  # the other two, three times each
    assert grounds("test_same", "ring") == {120: 6}
    assert grounds("test_shuffled", "dot") == {120: 6}
    assert grounds("test_shuffled", "ring") == {80: 6}
    for suite, bright in (("biased", 167), ("test_same", 255)):  # half faded: (255 + 80) / 2
        inside = []
        for file in (out / suite / "images/dot").iterdir():
            with (
                Image.open(file) as image,
                Image.open(out / suite / f"masks/dot/{file.stem}.png") as area,
            ):
                inside.append(np.median(np.asarray(image)[np.asarray(area) == 255]))
        assert np.median(inside) == pytest.approx(
            bright, abs=6
        )  # most stand on their own background
    found = json.loads((out / "benchmark.json").read_text())
    assert found["background_of"] == {"dot": "bar", "ring": "cross"}
    assert len(found["top1"]) == 2  # before, and after the only epoch
    assert folder_names(load(out / "model")) == ["dot", "ring"]


def test_planted_shortcut_refuses(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    other = tmp_path / "other"
    save(ZOO["ViT (transformers)"]["ViT"](), other)
    folders = ("--images", images, "--model", model_folder, "--out", tmp_path / "set")
    for options, message in (
        (("--masks", masks, masks), "--masks: 2 folders for 1"),
        (
            ("--masks", masks, "--objects", "unicorn"),
            "--objects unicorn: no class with usable masks; choose one of",
        ),
        (("--masks", masks, "--classes", 1), "lower --classes"),
        (
            ("--masks", masks, "--objects", "ant", "bee", "--backgrounds", "cat", "ant"),
            "ant is named twice",
        ),
        (("--masks", masks, "--out", images), "exists and is not overwritten"),
        (("--masks", masks, "--share", 2), "--share 2: must be 0 to 1"),
        (("--masks", masks, "--batch-size", 0), "--batch-size 0: must be 1 or more"),
        (
            ("--masks", masks, "--mask-score", 0, "--classes", 2, "--model", other),
            "choose one of the models of timm",
        ),
    ):
        code, _, error = started("planted_shortcut.py", *folders, *options)
        assert code == 2
        assert message in error
        assert not (tmp_path / "set").exists()


def test_planted_compares_draw_by_draw(tmp_path: Path) -> None:
    """From finished rows.

    Differences 10 and 14 are 12 with a t-interval of one degree of freedom, 12.706 * 2 each way.
    """
    before = dict.fromkeys(
        ("same", "trained", "untrained", "worst_group", "background_share"), 50.0
    )
    with (tmp_path / "rows.jsonl").open("w") as sink:
        for draw, name, shuffled in (
            (0, "finetune", 40.0),
            (1, "finetune", 60.0),
            (0, "refocus", 50.0),
            (1, "refocus", 74.0),
        ):
            row = before | {"shuffled": shuffled}
            record = {
                "draw": draw,
                "objective": name,
                "lr": 1e-5,
                "before": row,
                "tuned": row,
                "last": row,
                "kept": row,
            }
            sink.write(json.dumps(record) + "\n")
    options = ("--draws", 0, 1, "--methods", "finetune:1e-5", "refocus:1e-5")
    shown = run("planted.py", "--data", tmp_path, "--model", tmp_path, "--out", tmp_path, *options)
    assert "| finetune, lr 1e-05 | last | +0.0 [+0.0, +0.0] | +12.0 [-13.4, +37.4] |" in shown
    assert "| refocus, lr 1e-05 | last | 50.0 ± 0.0 | 62.0 ± 17.0 |" in shown
    assert (tmp_path / "last.png").exists()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    axes = runpy.run_path(str(EXAMPLES / "planted.py"))["figure"](rows).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "finetune, lr 1e-05",
        "refocus, lr 1e-05",
    ]
    own, other = (bars.lines[0].get_xdata().tolist() for bars in axes.containers)
    assert own == [50, 50]
    assert other == [50, 62]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code as it stands, cell by cell, in one namespace.

    What it prints is the story it tells.
    """
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = [
        c
        for c in json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
        if c["cell_type"] == "code"
    ]
    assert len(cells) == 10
    space: dict[str, object] = {}
    for cell in cells:
        exec("".join(cell["source"]), space)
    shown = capsys.readouterr().out
    assert "{'tune': 120, 'in_domain': 1000, 'shuffled': 1000}" in shown
    (gain,) = re.findall(r"shuffled: ([+-][0-9.]+) points", shown)
    assert float(gain) > 10
    assert shown.strip().endswith("0.0")  # plain timm answers alike
    shutil.rmtree(str(space["work"]))


@pytest.mark.slow
def test_objectives_side_by_side_on_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "PER_CLASS", {"tune": 12, "in_domain": 2, "shuffled": 2})
    demo = tmp_path / "demo"
    for position, name in enumerate(story.PER_CLASS):
        story.write_images(demo / "data" / name, name, np.random.default_rng(position))
    model: Any = story.pretrained()
    model.reset_classifier(10)
    save(model, demo / "biased" / "model")
    write_json(demo / outputs.MANIFEST, {"seed": 3})
    given = ("--demo", demo, "--out", tmp_path / "out", "--rows", "finetune:3e-4:all")
    text = run("demo_objectives.py", *given)
    lines = [line.split("|")[1:-1] for line in text.splitlines() if "finetune" in line]
    assert [line[1].split()[0] for line in lines] == ["best", "last", "50/50"]
    kept = json.loads((tmp_path / "out" / "finetune-3e-4-all" / "recipe.json").read_text())
    assert (kept["classes"], kept["shots"], kept["epochs"]) == (10, 10, 8)
    assert kept["lr_decay"] ** 8 == pytest.approx(0.85**25)
    assert run("demo_objectives.py", *given) == text  # nothing is trained again
