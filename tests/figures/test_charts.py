"""Charts: for wide and narrow screens, light and dark."""

from __future__ import annotations

import base64
import re

from refocus.figures import charts
from refocus.figures.tables import Row
from refocus.results import Compared, Estimate


def svg(uri: str) -> str:
    return base64.b64decode(uri.split(",")[1]).decode()


def test_a_chart_follows_the_readers_mode_and_width() -> None:
    before, after = Estimate(40.0, (30.0, 50.0), 50), Estimate(60.0, (50.0, 70.0), 50)
    found = charts.accuracies([Row("a", "top-1", Compared(after, before))], ("original", "tuned"))
    widths = []
    for uri in (found.wide, found.narrow):
        text = svg(uri)
        assert "@media screen and (prefers-color-scheme:dark)" in text
        drawn = text.split("</style>", 1)[1]
        for color in (charts.BEFORE, charts.AFTER, "#000000"):
            assert color not in drawn  # all colours have two values
        (width,) = re.findall(r'<svg[^>]*width="([0-9.]+)pt"', text)
        widths.append(float(width))
    assert widths[0] > 1.5 * widths[1]
    assert found == charts.accuracies(
        [Row("a", "top-1", Compared(after, before))], ("original", "tuned")
    )
