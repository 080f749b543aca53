"""What to measure: what is not legal is said in one line, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refocus import InputError
from refocus.evaluation.plan import Plan


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"suites": {}}, "suites: empty"),
        ({"suites": "images"}, "suites images: must be names with a path each"),
        ({"suites": {"a": " "}}, "suites"),
        ({"shifts": ("melted",)}, "shifts melted: no such shift"),
        ({"protocol": "mine"}, "protocol mine: must be standard, paper or both"),
        ({"most": 0}, "most 0: must be a whole number of at least 2"),
        ({"mask_score": float("nan")}, "mask_score nan: must be a number between 0 and 1"),
        ({"batch_size": 0}, "batch_size 0: must be a whole number of at least 1"),
        ({"faithful": True}, "faithful True: must be a whole number"),
        ({"workers": -1}, "workers -1: must be a whole number between 0 and 256"),
    ],
)
def test_what_is_not_legal(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Plan(**{"suites": {"a": "images"}, **given})
    assert "\n" not in str(caught.value)


def test_paths_are_taken_as_text_or_path() -> None:
    plan = Plan({"a": Path("images"), "b": "~/more"}, {"a": Path("masks")})
    assert plan.path("a") == Path("images")
    assert plan.path("b") == Path.home() / "more"
    assert plan.masks_of("a") == Path("masks")
    assert plan.masks_of("b") is None
