"""The documents name what there is: every public name is in the reference."""

from __future__ import annotations

import re

import refocus
from tests.makers import DOCS


def test_the_reference_names_every_public_name_once() -> None:
    named = re.findall(r"^::: refocus\.(\w+)$", (DOCS / "reference.md").read_text(), re.M)
    assert sorted(named) == sorted(set(refocus.__all__) - {"__version__"})
