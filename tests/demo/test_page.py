"""The demo's page in a real browser: phones, dark mode, print."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from PIL import Image

from refocus.demo.story import DemoRow, write_page
from tests.makers import answers_first

CHROMIUM = shutil.which("chromium")
BROWSER = CHROMIUM is not None and importlib.util.find_spec("playwright") is not None
ROWS = {
    "biased": DemoRow(97.0, 35.0, 40.0, 31.0, 0.7),
    "finetune": DemoRow(96.0, 45.0, 50.0, 41.0, 0.65),
    "relevance": DemoRow(95.0, 55.0, 60.0, 51.0, 0.6),
    "refocus": DemoRow(96.0, 70.0, 81.0, 59.0, 0.63),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.new("RGB", (1200, 900)).save(tmp_path / "maps.png")
    write_page(tmp_path, ROWS, 0)
    return tmp_path / "report.html"


def test_it_answers_first(file: Path) -> None:
    answers_first(file)
    text = file.read_text()
    assert text.index("70&nbsp;%") < text.index("35 → 70 %") < text.index("<nav")


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs playwright and Debian's chromium")
@pytest.mark.filterwarnings("ignore")
def test_it_fits_a_phone_follows_dark_mode_and_prints_what_is_folded(file: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        paper = {}
        for width, scheme in ((400, "light"), (400, "dark"), (1280, "dark")):
            page = browser.new_page(
                viewport={"width": width, "height": 800},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            chart = page.locator("img.chart").bounding_box()
            assert chart is not None
            assert chart["width"] > 0.9 * min(width, 66 * 16) - 32  # the whole width
            paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            folded = page.locator("details table")
            assert not folded.is_visible()
            page.emulate_media(media="print", color_scheme="dark")
            assert folded.is_visible()
            white = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert white == "rgb(255, 255, 255)"
            page.close()
        assert paper["light"] != paper["dark"]
        browser.close()
