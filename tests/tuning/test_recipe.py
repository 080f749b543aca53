"""Recipes refuse what would fail later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import refocus
from refocus import Recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "fast"}, "lr fast: must be a number, such as 2e-6, or auto"),
        ({"lr_range": (1e-5, 1e-6)}, "lr_range"),
        ({"lora": 0}, "lora 0: must be at least 1"),
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
    ],
)
def test_recipes_refuse_values_that_would_fail_later(
    recipe: Recipe, field: str, value: object
) -> None:
    with pytest.raises(refocus.InputError, match=rf"^(weights|{field}) "):
        replace(recipe, **{field: value})


def test_recipes_refuse_unknown_keys(recipe: Recipe) -> None:
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(refocus.InputError, match="unknown key 'epoch'"):
        Recipe.from_dict({**recipe.to_dict(), "epoch": 3})
