"""Fonts: characters that matplotlib's own lacks are drawn with an installed font that has them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from refocus.figures import charts, fonts

CAT, DOG = "\u732b", "\u72ac"


def font(folder: Path, name: str, characters: str) -> None:
    """A font whose glyphs are lozenges, listed as installed."""
    pen = TTGlyphPen(None)
    pen.moveTo((500, 0))
    for corner in ((900, 400), (500, 800), (100, 400)):
        pen.lineTo(corner)
    pen.closePath()
    named = {ord(c): f"u{ord(c):X}" for c in characters}
    glyphs = dict.fromkeys([".notdef", *named.values()], pen.glyph())
    made = FontBuilder(1000)
    made.setupGlyphOrder(list(glyphs))
    made.setupCharacterMap(named)
    made.setupGlyf(glyphs)
    made.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": name, "styleName": "Regular"})
    made.setupOS2(sTypoAscender=800, usWinAscent=800)
    made.setupPost()
    made.save(folder / f"{name}.ttf")
    font_manager.fontManager.addfont(folder / f"{name}.ttf")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    fonts._families.cache_clear()
    yield
    fonts._families.cache_clear()
    font_manager.fontManager._findfont_cached.cache_clear()


def drawn(title: str, tick: str) -> bytes:
    page = Figure(figsize=(2, 2))
    axes = page.subplots()
    axes.set_title(title)
    axes.set_xticks([0], [tick])
    return charts.written(page, "png")


def test_each_character_is_drawn_with_a_font_that_has_it(tmp_path: Path) -> None:
    boxes = drawn(CAT, DOG)
    font(tmp_path, "cats", CAT)
    fonts._families.cache_clear()  # of a process that began before the font was installed
    half = drawn(CAT, DOG)
    font(tmp_path, "dogs", DOG)
    fonts._families.cache_clear()
    whole = drawn(CAT, DOG)
    assert len({boxes, half, whole}) == 3
    assert fonts._families(frozenset({ord(CAT), ord(DOG)})) == ("cats", "dogs")


def test_plain_names_are_drawn_once_and_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "cover", lambda *_: pytest.fail("nothing is missing"))
    assert drawn("cat", "dog") == drawn("cat", "dog")


def test_other_warnings_are_still_given() -> None:
    class Loud(Figure):
        def savefig(self, *given: object, **how: object) -> None:
            warnings.warn("look here", UserWarning, stacklevel=1)
            super().savefig(*given, **how)

    with pytest.warns(UserWarning, match="look here"):
        charts.written(Loud(), "png")


def test_a_font_file_that_is_gone_or_broken_has_no_characters(tmp_path: Path) -> None:
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    assert fonts._characters(str(tmp_path / "bad.ttf")) == frozenset()
    assert fonts._characters(str(tmp_path / "none.ttf")) == frozenset()
