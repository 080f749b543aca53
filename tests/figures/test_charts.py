"""Charts: for wide and narrow screens, light and dark."""

from __future__ import annotations

import base64
import re
import warnings
from pathlib import Path

import numpy as np

from refocus.figures import charts, pictures
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


def test_the_line_below_a_narrow_chart_is_whole() -> None:
    one = Estimate(25.0, (6.0, 57.0), 12)
    rows = [Row("published objective, automatic masks", "top-1", Compared(one, one))]
    for page in (
        charts._accuracies(rows, ("original", "tuned"), charts._NARROW),
        charts._changes({rows[0].name: one}, "top-1", charts._NARROW),
    ):
        page.draw_without_rendering()
        below = page.axes[0].xaxis.label.get_window_extent()
        assert below.x0 >= 0
        assert below.x1 <= page.bbox.x1


def test_no_two_lines_of_a_chart_look_alike() -> None:
    point = Estimate(50.0, (40.0, 60.0), 9)
    lines = {f"suite{n}": ({1: point, 2: point}, point) for n in range(9)}  # as the paper has
    drawn = charts._series(lines, "images", 8.6).axes[0].get_lines()
    looks = [(line.get_color(), line.get_marker()) for line in drawn if len(line.get_xdata()) == 2]
    named = [look for look in looks if look[1] != "None"]
    assert len(named) == len(set(named)) == 9


def test_names_that_the_font_lacks_are_no_warnings(tmp_path: Path) -> None:
    tile = np.zeros((8, 8, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures.figure([[tile]], ["\u732b"], [["\u72ac"]], tmp_path / "a.png")
        charts.changes({"\u732b": Estimate(1.0, (0.5, 1.5), 50)})
    assert (tmp_path / "a.png").exists()
