"""The glossary: one table for pages and documentation."""

from __future__ import annotations

import pytest

from refocus.figures.glossary import glossary, markdown, words
from tests.makers import DOCS


def test_the_documentation_is_made_of_the_table() -> None:
    assert (DOCS / "glossary.md").read_text() == markdown()
    assert list(glossary()) == sorted(glossary(), key=str.lower)


def test_a_page_can_only_use_words_that_are_explained() -> None:
    assert list(words("BG-gap", "mask")) == ["BG-gap", "mask"]
    with pytest.raises(KeyError):
        words("bg gap")
