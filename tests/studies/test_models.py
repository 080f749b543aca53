"""Several models in one study, and the average over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from refocus.cli import main
from refocus.studies import datasets, layouts, registry
from refocus.studies.order import Order
from refocus.studies.results import AVERAGE
from refocus.studies.settings import StudySettings
from refocus.vit import loading
from tests.makers import NAMES
from tests.studies.makers import RUN, options


@pytest.fixture(scope="module")
def two(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A second model of the same name in another folder, and options that name both."""
    torch.manual_seed(1)
    root = tmp_path_factory.mktemp("two")
    config = {"input_size": (3, 32, 32), "crop_pct": 1.0, "label_names": NAMES}
    second = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=4,
        pretrained_cfg_overlay=config,
    )
    loading.save(second, root / "model")
    given = options(place, "--model", str(root / "model"), "--shift", "mixed-rand")
    given += ["--lr", "relevance=1e-3", "--select", "last"]
    given[given.index("--out") + 1] = str(root / "out")
    return root / "out", given


def lines_of(out: Path, name: str) -> list[dict[str, object]]:
    content = json.loads((out / f"{name}.json").read_text())
    found: list[dict[str, object]] = content["lines"]
    return found


@pytest.mark.slow
def test_the_average_is_that_of_the_models_changes(two: tuple[Path, list[str]]) -> None:
    out, given = two
    result = RUN.invoke(main.app, ["study", "table10", *given])
    assert result.exit_code == 0, result.exception
    lines = lines_of(out, "table10")
    assert {line["model"] for line in lines} == {"model", "model-2", AVERAGE}
    averages = [line for line in lines if line["model"] == AVERAGE]
    assert len(averages) == 8  # two suites, top-1 and top-5, trained and untrained
    for average in averages:
        same = [
            line["change"]["difference"]  # type: ignore[index]
            for line in lines
            if line["change"] is not None
            and line["model"] != AVERAGE
            and all(line[key] == average[key] for key in ("suite", "metric", "classes"))
        ]
        assert len(same) == 2
        assert average["change"]["difference"] == pytest.approx(np.mean(same))  # type: ignore[index]
        assert average["change"]["interval"] is not None  # type: ignore[index]
    assert any(line["change"]["difference"] for line in averages)  # type: ignore[index]
    # Table 10, ObjectNet, the nearest to mixed-rand: as printed
    assert [x["paper_change"] for x in averages if x["suite"] == "mixed-rand"] == [
        5.7,
        7.3,
        5.6,
        8.0,
    ]
    assert "| average | published objective, trained classes |" in (out / "table10.md").read_text()


def test_figure4_is_the_average_alone(two: tuple[Path, list[str]]) -> None:
    out, given = two
    assert RUN.invoke(main.app, ["study", "figure4", *given]).exit_code == 0
    lines = lines_of(out, "figure4")
    assert {line["model"] for line in lines} == {AVERAGE}
    page = (out / "figure4.html").read_text()
    assert "published objective: average change of top-1" in page
    assert "published objective: average change of top-5" in page


def test_images_that_a_model_lacks_do_not_count() -> None:
    one = layouts.moves([{"a": 100.0, "b": 0.0}], {"a": 0.0, "b": 0.0})
    other = layouts.moves([{"b": 100.0, "c": 0.0}], {"b": 0.0, "c": 0.0})
    assert layouts.together([one, other]).tolist() == [[50.0]]


def test_the_papers_average_stands_beside_that_of_the_same_models(tmp_path: Path) -> None:
    """Of some of the models it would be another number."""
    row = registry.study("table1")
    models = ["ViT-B", "ViT-L", "AR-S", "AR-B", "AR-L", "DeiT-S", "DeiT-B"]
    cell = layouts.Cell(AVERAGE, "imagenet-a", "top1")
    for some, printed in ((models, 5.8), (models[:3], None)):
        ground = datasets.Ground(
            dict.fromkeys(some, "x"), tmp_path, {"annotated": tmp_path}, {}, own=False
        )
        order = Order("table1", row, ground, tmp_path, {})
        assert layouts.printed(order, cell, registry.PUBLISHED) == (None, printed)


def test_models_of_one_name_are_told_apart() -> None:
    settings = StudySettings(on="a", model=("x/vit", "y/vit", "vit_tiny"), masks="k")
    assert settings.references == {"vit": "x/vit", "vit-2": "y/vit", "vit_tiny": "vit_tiny"}
    settings = StudySettings(on="a", model=("x/vit", "y/vit-3", "z/vit"), masks="k")
    assert settings.references == {"vit": "x/vit", "vit-3": "y/vit-3", "vit-4": "z/vit"}
