"""Installed fonts for what matplotlib's own lacks, such as Chinese or Arabic class names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text

_MISSING = re.compile(r"Glyph (\d+) .*missing from (?:current )?font")  # what matplotlib warns of
_BOXES = re.compile(r"\.?Last ?Resort")  # fonts that have a box for every character there is


def missing(warning: str) -> int | None:
    """The code point of the character that a warning of matplotlib is about."""
    found = _MISSING.match(warning)
    return int(found[1]) if found else None


def cover(page: Figure, characters: frozenset[int]) -> bool:
    """Give a drawn figure's texts further fonts that have these characters, where any has one."""
    further = _families(characters)
    for text in page.findobj(Text) if further else ():
        text.set_fontfamily([*rcParams["font.family"], *further])
    return bool(further)


@cache
def _families(characters: frozenset[int]) -> tuple[str, ...]:
    """As few installed families as it takes, each with a character that those before it lack."""
    left, found = set(characters), list[str]()
    for name, path in _installed():
        if left and (has := left & _characters(path)):
            left -= has
            found.append(name)
    return tuple(found)


def _installed() -> Iterable[tuple[str, str]]:
    """Name and file of each family's upright face of usual weight, in the order of their names."""
    fonts = font_manager.fontManager.ttflist
    plain = {f.name: f.fname for f in fonts if f.style == "normal" and f.weight in (400, "normal")}
    return sorted((name, path) for name, path in plain.items() if not _BOXES.match(name))


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # removed since it was listed, or no font that can be read
        return frozenset()
