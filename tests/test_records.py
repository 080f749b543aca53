"""Records: to JSON and back, and what is not one is refused by name and place."""

from __future__ import annotations

import json

import pytest

from refocus import InputError
from refocus.records import from_json, to_json
from refocus.results import Change, Compared, Estimate

WHOLE = Compared(
    Estimate(81.0, (70.5, 90.0), 40),
    Estimate(None, None, 0),
    Change(-1.5, (-4.0, 1.0), 40, 0.4, 2, 3),
)


def test_a_record_comes_back_from_json_as_it_was() -> None:
    assert from_json(json.loads(json.dumps(to_json(WHOLE))), Compared, "x") == WHOLE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"value": "81", "interval": None, "n": 4}}, r"\$\.model\.value"),
        ({"model": {"value": 81, "interval": [1], "n": 4}}, r"\$\.model\.interval"),
        ({"against": None}, "model"),
        ([], "object"),
        (None, "object"),
    ],
)
def test_another_shape_is_refused_by_file_and_place(content: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"a\.json: .*{said}"):
        from_json(content, Compared, "a.json")


@pytest.mark.parametrize(
    ("interval", "p", "decided"),
    [
        ((0.5, 2.0), 0.01, 1),
        ((-2.0, -0.5), None, -1),
        ((0.5, 2.0), 0.125, 0),  # the bootstrap is too sure with few changed images
        ((-0.5, 2.0), 0.01, 0),
        (None, 0.01, 0),
    ],
)
def test_a_change_is_decided_where_interval_and_test_agree(
    interval: tuple[float, float] | None, p: float | None, decided: int
) -> None:
    assert Change(1.0, interval, 9, p).decided == decided
