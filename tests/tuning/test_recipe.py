"""Recipes refuse what would fail later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import refocus
from refocus import Recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "fast"}, "lr fast: must be a number above 0 or auto"),
        ({"lr_range": (1e-5, 1e-6)}, "lr_range"),
        ({"lr": 1e-5, "lr_range": (1e-9, 1e-8)}, "lr_range: only with lr=auto"),
        ({"lora": 0}, "lora 0: must be a whole number of at least 1"),
        ({"lora": 2, "last_blocks": 1}, "lora: freezes"),
        ({"select": "first"}, "select first: must be best or last"),
        ({"protocol": "mine"}, "protocol mine: must be standard or paper"),
    ],
)
def test_bad_options_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(refocus.InputError, match=message):
        Recipe(model="m", images="i", masks="k", **given)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tolerance", -5),
        ("weight_decay", -1),
        ("seed", -1),
        ("class_seed", -1),
        ("lr", float("nan")),
        ("weights", {"background": float("nan")}),
        ("flip", 2),
        ("shots", 0),
        ("precision", "fp8"),
        ("device", "tpu"),
        ("classes", 0),
        ("shots", True),
        ("shots", 2.5),
        ("lr", float("inf")),
        ("lr", True),
        ("tolerance", float("inf")),
        ("flip", float("nan")),
        ("second_order", 1),
        ("weights", {"background": "much"}),
        ("lr_range", (1e-6,)),
        ("lr_range", (float("nan"), 1e-6)),
        ("model", ""),
        ("images", " "),
        ("seed", 2**32),
    ],
)
def test_recipes_refuse_values_that_would_fail_later(
    recipe: Recipe, field: str, value: object
) -> None:
    with pytest.raises(refocus.InputError, match=rf"^{field}\b.*: must be "):
        replace(recipe, **{field: value})


def test_recipes_refuse_unknown_keys(recipe: Recipe) -> None:
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(refocus.InputError, match="unknown key 'epoch'"):
        Recipe.from_dict({**recipe.to_dict(), "epoch": 3})


def test_a_recipe_read_back_names_its_file() -> None:
    with pytest.raises(refocus.InputError, match=r"^run/recipe.json: images is missing$"):
        Recipe.from_dict({"model": "m"}, "run/recipe.json")
    with pytest.raises(refocus.InputError, match=r"^run/recipe.json: shots x: must be a whole"):
        Recipe.from_dict(
            {"model": "m", "images": "i", "masks": "k", "shots": "x"}, "run/recipe.json"
        )


def test_a_recipe_takes_paths_and_what_json_makes_of_it() -> None:
    recipe = Recipe(model=Path("m"), images=Path("i"), masks="k", lr=1)  # type: ignore[arg-type]
    assert (recipe.model, recipe.images, recipe.lr) == ("m", "i", 1.0)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_papers_protocol_has_its_own_defaults_which_can_be_overridden() -> None:
    ours, paper = (Recipe("m", "i", "k", protocol=name) for name in ("standard", "paper"))
    names = ("val_images", "do_no_harm", "mask_score")
    assert [getattr(ours, name) for name in names] == [400, True, 0.5]
    assert [getattr(paper, name) for name in names] == [414, False, 0.0]
    own = Recipe("m", "i", "k", protocol="paper", val_images=9, do_no_harm=True, mask_score=0.2)
    assert [getattr(own, name) for name in names] == [9, True, 0.2]
    assert Recipe.from_dict(json.loads(json.dumps(paper.to_dict()))) == paper
    assert Recipe("m", "i", "k", protocol="paper", share=0.5).share == 0.5  # no rule to choose it
