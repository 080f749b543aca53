"""Which images a page shows."""

from __future__ import annotations

from refocus.reports.gallery import outcomes
from tests.makers import answer


def test_gallery_groups_are_chosen_by_rule() -> None:
    before = [answer(str(i), 0, int(i < 6), 0.1 * (i % 4)) for i in range(12)]  # 0-5 wrong
    after = [answer(str(i), 0, int(i % 2), 0.9 - 0.05 * i) for i in range(12)]  # even right
    corrected, spoiled, right, wrong = outcomes(before, after, count=2)
    assert (corrected.total, spoiled.total, right.total, wrong.total) == (3, 3, 3, 3)
    assert corrected.shown == ["0", "4"]  # rises of 0.9, 0.7 and 0.6 for 0, 4 and 2
    assert spoiled.shown[0] == "11"
    assert right.shown == ["6"]
    assert wrong.shown == ["1"]
