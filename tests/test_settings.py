"""Settings say once what a field is, what is legal and what it means."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from msgspec import Meta

from refocus.errors import InputError
from refocus.settings import (
    Count,
    CountOrZero,
    Folders,
    Fraction,
    PathText,
    Positive,
    PositiveFraction,
    Text,
    check,
    settings_of,
)


@dataclass(frozen=True)
class Garden:
    """For these tests."""

    name: Annotated[Text, Meta(description="What it is called; see ‹trees›.")]
    trees: Annotated[Count, Meta(description="How many.")] = 2
    ponds: CountOrZero = 0
    shade: Fraction = 0.5
    water: Positive | Literal["rain"] | None = None
    grown: PositiveFraction | None = None
    soil: Literal["clay", "loam", "sand"] = "loam"
    open: bool = True
    size: tuple[float, float] = (1.0, 2.0)
    view: tuple[Text, PathText] | None = None
    beds: Folders = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)


def test_a_field_says_its_type_default_and_meaning() -> None:
    name, trees, *rest = settings_of(Garden)
    assert (name.kind, name.default, name.about) == (
        str,
        MISSING,
        "What it is called; see ‹trees›.",
    )
    assert (trees.kind, trees.default, trees.about) == (int, 2, "How many.")
    assert [s.kind for s in rest[:4]] == [int, float, float | Literal["rain"] | None, float | None]


def test_what_is_legal_is_said_in_words() -> None:
    assert {s.name: s.legal for s in settings_of(Garden)} == {
        "name": "a text that is not empty",
        "trees": "a whole number of at least 1",
        "ponds": "a whole number of at least 0",
        "shade": "a number between 0 and 1",
        "water": "a number above 0 or rain",
        "grown": "a number above 0 and at most 1",
        "soil": "clay, loam or sand",
        "open": "True or False",
        "size": "2 numbers",
        "view": "2 texts",
        "beds": "names with a path each",
    }


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "^name: must be a text that is not empty$"),
        ("name", " ", "^name: must be a text that is not empty$"),
        ("name", 3, "^name 3: must be a text"),
        ("trees", 0, "^trees 0: must be a whole number of at least 1$"),
        ("trees", 1.5, "^trees 1.5: must be a whole number"),
        ("trees", True, "^trees True: must be a whole number"),
        ("shade", 1.1, "^shade 1.1: must be a number between 0 and 1$"),
        ("shade", float("nan"), "^shade nan: must be a number between 0 and 1$"),
        ("water", "snow", "^water snow: must be a number above 0 or rain$"),
        ("water", float("inf"), "^water inf: must be a finite number$"),
        ("grown", 0, "^grown 0: must be a number above 0 and at most 1$"),
        ("soil", "peat", "^soil peat: must be clay, loam or sand$"),
        ("open", 1, "^open 1: must be True or False$"),
        ("size", (1.0,), "must be 2 numbers$"),
        ("view", ["png"], "must be 2 texts$"),
        ("size", (1.0, float("nan")), "^size nan: must be a finite number$"),
        *[
            ("beds", {name: "p"}, rf"^beds {re.escape(name)}=p: .* a name that can be a file name$")
            for name in ["/else/where", "../up", "a\\b", "c:", "", ".", "..", "a\0b", "é" * 101]
        ],
    ],
)
def test_what_is_not_legal_is_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Garden(**{"name": "eden", field: value})


def test_paths_and_lists_become_what_the_field_holds() -> None:
    garden = Garden(Path("a") / "b", size=[1, 2])  # type: ignore[arg-type]
    assert (garden.name, garden.size) == ("a/b", (1.0, 2.0))
    assert Garden("eden", view=["png", Path("a") / "b"]).view == ("png", "a/b")  # type: ignore[arg-type]


def test_numbers_of_numpy_and_torch_become_pythons() -> None:
    garden = Garden(
        "eden", trees=np.int64(3), shade=np.float32(0.5), open=np.bool_(False), water=torch.ones(())
    )  # type: ignore[arg-type]
    assert (garden.trees, garden.shade, garden.open, garden.water) == (3, 0.5, False, 1.0)
    assert [type(getattr(garden, name)) for name in ("trees", "shade", "open")] == [
        int,
        float,
        bool,
    ]
