"""The glossary: one table of words for pages and documentation."""

from __future__ import annotations

import sys
from importlib.resources import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HEAD = """# Glossary

The pages of `audit`, `report` and `probe` use the same definitions (`assets/glossary.toml`).
"""


def glossary() -> dict[str, str]:
    """Word -> what it means."""
    text = files("refocus").joinpath("assets", "glossary.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text))


def words(*names: str) -> dict[str, str]:
    """Some words of the glossary.

    Raises:
        KeyError: a word that it does not have.
    """
    every = glossary()
    return {name: every[name] for name in names}


def markdown() -> str:
    """docs/glossary.md."""
    entries = "\n".join(f"- **{word}**: {text}" for word, text in glossary().items())
    return f"{_HEAD}\n{entries}\n"
