"""What PyPI shows: the README with links that work there, and the project's addresses.

PyPI resolves no relative link. Where the repository is known, links to its files become absolute;
else they become plain text. GitHub's workflows say which repository they run for; elsewhere the
environment variable REFOCUS_REPOSITORY does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_URLS = {
    "Paper": "https://arxiv.org/abs/2206.01161",
    "Relevance maps": "https://arxiv.org/abs/2103.15679",
}
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^)\s]+)\)")


def repository() -> str | None:
    """The address of the repository, where it is known."""
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    named = f"{server}/{name}" if server and name else None
    return os.environ.get("REFOCUS_REPOSITORY") or named


def for_pypi(text: str, address: str | None) -> str:
    """The README with absolute links, or without those that would lead nowhere."""

    def link(match: re.Match[str]) -> str:
        image, words, to = match["image"], match["text"], match["to"]
        if re.match(r"[a-z]+:|#", to):
            return match[0]
        if address is None:
            return "" if image else words
        return f"{image}[{words}]({address}/{'raw' if image else 'blob'}/main/{to})"

    return _LINK.sub(link, text)


def urls(address: str | None) -> dict[str, str]:
    """What PyPI lists at the side."""
    if address is None:
        return dict(_URLS)
    return {
        "Repository": address,
        "Documentation": f"{address}/tree/main/docs",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
        **_URLS,
    }


class CustomMetadataHook(MetadataHookInterface):
    """Fills in the fields that pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set readme and urls."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = repository()
        metadata["readme"] = {"content-type": "text/markdown", "text": for_pypi(text, address)}
        metadata["urls"] = urls(address)
