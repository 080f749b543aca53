"""What is not said is decided in one place: the objective, and what finds masks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import refocus
from refocus.cli.options import settings_from
from refocus.masks import choice
from refocus.objectives.registry import OBJECTIVES
from refocus.settings import settings_of
from refocus.tuning.recipe import RECOMMENDED, Recipe
from refocus.vit import hub
from tests.makers import ROOT, invoke


def _default(kind: type, field: str) -> Any:
    return next(setting.default for setting in settings_of(kind) if setting.name == field)


def test_one_objective_is_the_default_everywhere() -> None:
    assert RECOMMENDED in OBJECTIVES
    assert _default(Recipe, "objective") == RECOMMENDED
    assert _default(refocus.RunSettings, "objective") == RECOMMENDED
    for command in ("tune", "run"):
        assert f"[default: {RECOMMENDED}]" in invoke(command, "--help")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = f"the default objective, which is ours (`{RECOMMENDED}`; `--objective relevance`"
    assert named in readme
    assert "--objective refocus" not in readme  # it need not be said


def test_a_run_shares_its_other_defaults_with_tune() -> None:
    for field in ("shots", "epochs", "tolerance"):
        assert _default(refocus.RunSettings, field) == _default(Recipe, field)


@pytest.mark.slow
def test_a_preset_of_the_paper_means_its_objective(
    image_folders: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    images, masks = image_folders
    given = ("--model", model_folder, "--images", images, "--masks", masks, "--epochs", 1)
    invoke("tune", *given, "--preset", "ViT-B", "--shots", 1, "--out", tmp_path / "run")
    kept = (tmp_path / "run" / "recipe.json").read_text()
    assert '"objective": "relevance"' in kept


def test_a_recipe_on_disk_keeps_its_own_objective() -> None:
    kept = {"model": "m", "images": "i", "masks": "k", "objective": "relevance"}
    assert Recipe.from_dict(kept).objective == "relevance"
    assert settings_from(Recipe, {"objective": "relevance"}) == {"objective": "relevance"}


@pytest.mark.parametrize(
    ("wheel", "onnx", "chosen"),
    [(True, True, choice.OFFLINE), (True, False, choice.HUB), (False, True, choice.HUB)],
)
def test_masks_are_found_offline_where_that_is_installed(
    wheel: bool, onnx: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution(name: str) -> object:
        if not wheel:
            raise PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(choice, "distribution", distribution)
    monkeypatch.setattr(choice, "find_spec", lambda name: object() if onnx else None)
    assert choice.default_backbone() == chosen
    for kind in (refocus.MaskSettings, refocus.AuditSettings, refocus.RunSettings):
        assert kind().backbone == chosen  # type: ignore[attr-defined]


def test_a_hub_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            raise OSError("no way out")

    monkeypatch.setattr(hub, "get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(refocus.InputError, match=r"from the hub \(it does not answer\)") as error:
        refocus.load(choice.HUB)
    assert asked == [constants.ENDPOINT]
    assert constants.HF_HUB_OFFLINE is False  # as it was before
    assert "\n" not in str(error.value)
