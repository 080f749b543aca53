"""What tests of several packages make: folders of images, stimuli, a call of the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from refocus.cli import main
from refocus.objectives.registry import OBJECTIVES
from refocus.records import Prediction
from refocus.tuning.results import TuneResults, Verdict

Build = Callable[..., nn.Module]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAMES = ["ant", "bee", "cat", "dog"]


def original_of(name: str, model: nn.Module) -> dict[str, Any]:
    """`original` for an objective that reads it; others refuse it."""
    return {"original": model} if OBJECTIVES[name].needs_original else {}


def make_images(
    root: Path, names: list[str] = NAMES, count: int = 6, seed: int = 0
) -> tuple[Path, Path]:
    rng = np.random.default_rng(seed)
    for label, name in enumerate(names):
        for position in range(count):
            image = rng.integers(0, 120, size=(36, 40, 3), dtype=np.uint8)
            mask = np.zeros((36, 40), dtype=np.uint8)
            top, left = rng.integers(2, 16, size=2)
            image[top : top + 16, left : left + 16] = 150 + 30 * label % 106
            mask[top : top + 16, left : left + 16] = 255
            for kind, pixels in (("images", image), ("masks", mask)):
                path = root / kind / name / f"{position}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root / "images", root / "masks"


def stimuli(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name.split("-")[0].rstrip("0123456789") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(path)
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["refocus", *(str(a) for a in arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit_:
        main.main()
    return int(exit_.value.code or 0)


def words(**options: object) -> list[str]:
    """Options of a command: `words(model=folder)` is `["--model", folder]`."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def gradient(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)).convert(
        mode
    )


def answer(image: str, label: int, guess: int, true: float = 0.5) -> Prediction:
    return Prediction(image, label, (guess,), 0.5, true)


class Links(HTMLParser):
    """Everything that a page would have to fetch; places on the page itself are there already."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            v
            for k, v in attrs
            if k in ("src", "href", "srcset") and v and not v.startswith(("data:", "#"))
        ]
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)


class Screen(HTMLParser):
    """What a page is made of: tags in order, ids, links to places on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.places: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        named = given.get("class") or ""
        self.tags.append(f"{tag}.{named}" if named else tag)
        self.ids |= {given["id"] or ""} if "id" in given else set()
        href = given.get("href") or ""
        self.places += [href[1:]] if href.startswith("#") else []


def answers_first(page: Path, numbers: int = 3) -> Screen:
    """A page for people: verdict, numbers, contents, pictures; folded details; dark mode; print."""
    text = page.read_text()
    screen = Screen(text)
    order = [screen.tags.index(tag) for tag in ("h1", "p.lead", "div.numbers", "nav", "h2")]
    assert order == sorted(order)
    after = screen.tags[screen.tags.index("div.numbers") + 1 :]
    cards = after[: next(i for i, tag in enumerate(after) if tag.startswith(("p", "nav")))]
    assert cards.count("b") == numbers
    assert screen.places
    assert set(screen.places) <= screen.ids
    assert "details" in screen.tags
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "loading=" not in text  # such pictures are missing in print
    return screen


def self_contained(page: Path) -> str:
    text = page.read_text()
    assert Links(text).found == []
    assert "url(" not in text
    return re.sub(r"data:[^\"]*", "", text)


def tuned(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, image_folders: tuple[Path, Path], out: Path
) -> Path:
    images, masks = image_folders
    given = words(model=model_folder, images=images, masks=masks, out=out)
    options = words(objective="relevance", epochs=2, shots=2, lr="1e-3")
    assert run(monkeypatch, "tune", *given, *options, "--no-do-no-harm") == 0
    return out


def masked_batch(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(count, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    return torch.randn(count, 3, 32, 32), masks, torch.arange(count) % 4


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(main.app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def matlab_file(
    file: Path, picture: np.ndarray | None = None, mask: np.ndarray | None = None
) -> Path:
    """One image and its mask as `gtsegs_ijcv.mat` has them; `[3, W, H]` and `[W, H]`.

    MATLAB stores column by column, and each mask in a cell of its own.
    """
    h5py = pytest.importorskip("h5py")
    if picture is None:
        pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
        picture = pixels.transpose(2, 1, 0)
    if mask is None:
        mask = np.zeros((64, 40), np.uint8)
        mask[32:, 10:30] = 1
    with h5py.File(file, "w") as store:
        picture_ref = store.create_dataset("#refs#/a", data=picture).ref
        cell = store.create_dataset("#refs#/c", (1, 1), dtype=h5py.ref_dtype)
        cell[0, 0] = store.create_dataset("#refs#/b", data=mask).ref
        for name, ref in (("img", picture_ref), ("gt", cell.ref)):
            rows = store.create_dataset(f"value/{name}", (1, 1), dtype=h5py.ref_dtype)
            rows[0, 0] = ref
    return file


def install(site: Path, package: str, code: str, points: str) -> None:
    """What `pip install` leaves of a tiny package: a module and its entry points."""
    (site / f"{package}.py").write_text(code)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def tune_results(**changes: Any) -> TuneResults:
    """Of a run whose weights averaged 50/50 with the original were kept."""
    found = TuneResults(
        model="m",
        objective="refocus",
        lr=1e-5,
        best_epoch=3,
        check_images=300,
        tolerance=1.0,
        candidates=(),
        advised_share=0.5,
        chosen_share=0.5,
        verdict=Verdict(True, 0.5, "Ship it."),
        trained_classes=("ant",),
    )
    return replace(found, **changes)
