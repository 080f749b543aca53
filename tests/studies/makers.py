"""Options of a study that is over in seconds."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

RUN = CliRunner()


def options(root: Path, *more: str) -> list[str]:
    base = [
        "--on",
        root / "images",
        "--model",
        root / "model",
        "--masks",
        root / "masks",
        "--automatic-masks",
        root / "masks",
    ]
    base += [
        "--out",
        root / "out",
        "--epochs",
        "1",
        "--most",
        "4",
        "--maps",
        "4",
        "--device",
        "cpu",
    ]
    return [*map(str, base), *more]
