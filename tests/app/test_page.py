"""The whole app in a real browser."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refocus import load
from refocus.app import looks
from refocus.app.folders import Folders
from tests.app.makers import GRADIO, serving

CHROMIUM = shutil.which("chromium")
BROWSER = GRADIO and CHROMIUM is not None and importlib.util.find_spec("playwright") is not None
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def opened(browser: Any, url: str, asked: list[str] | None = None, **options: Any) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, **options)
    page.set_default_timeout(60_000)
    if asked is not None:
        page.on("request", lambda request: asked.append(request.url))
    page.goto(url, wait_until="domcontentloaded")
    page.get_by_text("Where does your model look").wait_for()
    return page


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs gradio, playwright and Debian's chromium")
@pytest.mark.filterwarnings("ignore")
def test_the_app_opens_ready_to_use(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path, browser: Any
) -> None:
    """The first image of the folder is there, all tabs on a phone, and a link to one mask."""
    images, masks = image_folders
    with serving(two_models, tmp_path / "work", Folders(images, masks)) as (url, _):
        page = opened(browser, url)
        page.set_viewport_size({"width": 400, "height": 800})
        page.locator("#compare-numbers [data-model=tuned]").wait_for()
        first = looks.look(load(two_models["model"]), Image.open(images / "ant" / "0.png"))
        assert f"map of: {first.explained}" in page.locator("#compare-numbers").inner_text()
        for name in ("Compare", "Mask", "What if", "Tune", "Audit"):
            assert page.get_by_role("tab", name=name, exact=True).is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        for tab, idle in (("Tune", ("#tune-stop", "#tune-resume")), ("Audit", ("#audit-stop",))):
            page.get_by_role("tab", name=tab, exact=True).click()
            assert page.locator(f"#{tab.lower()}-start").is_enabled()
            assert not any(page.locator(name).is_enabled() for name in idle)
        page.goto(f"{url}/?mask=bee/3.png", wait_until="domcontentloaded")
        page.get_by_role("tab", name="Mask", exact=True, selected=True).wait_for()
        page.wait_for_function("document.querySelector('#mask-name input').value == 'bee/3.png'")


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs gradio, playwright and Debian's chromium")
@pytest.mark.filterwarnings("ignore")
def test_the_app_in_a_browser(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path, browser: Any
) -> None:
    """Upload, compare, draw, swap, tune, stop, resume, open the result, in two tabs.

    Nothing is asked of other hosts.
    """
    images, masks = image_folders
    (masks / "dog" / "5.png").unlink()
    asked: list[str] = []
    with serving(two_models, tmp_path / "work", Folders(images, masks)) as (url, tool):
        page, other = opened(browser, url, asked), opened(browser, url)

        # compare
        upload = "#compare-image input[type=file]"
        page.set_input_files(upload, str(images / "cat" / "0.png"))
        numbers = page.locator("#compare-numbers")
        seen = {
            t: looks.look(load(r), Image.open(images / "cat" / "0.png"))
            for t, r in zip(("tuned", "original"), two_models.values(), strict=True)
        }
        tuned = seen["tuned"]
        share = f"{tuned.shares[tuned.explained]:.1%}"  # till then they are the first image's
        numbers.locator("[data-model=tuned]", has_text=share).wait_for()
        for title, found in seen.items():
            text = numbers.locator(f"[data-model={title}]").inner_text()
            assert f"{title}: {found.explained}" in text
            assert f"{found.shares[found.explained]:.1%}" in text
        assert "original" in page.locator("#compare-sides").inner_text()
        page.get_by_label("Find the object").check()
        numbers.get_by_text("of the relevance lies on the object").first.wait_for()
        page.get_by_label("Explain which class?").click()
        page.get_by_role("option", name="dog", exact=True).click()
        numbers.get_by_text("map of: dog").first.wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download as PNG").click()
        assert Image.open(download.value.path()).size == (896, 448)
        # the other tab has seen nothing of it
        beside = other.locator("#compare-numbers").inner_text()
        assert "of the relevance lies on the object" not in beside

        # a file that is no image
        (tmp_path / "no.png").write_text("no image")
        other.set_input_files(upload, str(tmp_path / "no.png"))
        other.get_by_text("cannot be read").first.wait_for()

        # mask: the image without one comes first; draw, save
        page.get_by_role("tab", name="Mask", exact=True).click()
        canvas = page.locator("#mask-editor canvas").first
        canvas.wait_for()
        page.wait_for_function("document.querySelector('#mask-name input').value == 'dog/5.png'")
        time.sleep(2)
        box = canvas.bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.locator("#mask-editor").get_by_label("Brush", exact=False).first.click()
        page.mouse.move(middle[0] - 20, middle[1])
        page.mouse.down()
        page.mouse.move(middle[0] + 20, middle[1] + 10, steps=8)
        page.mouse.up()
        time.sleep(1)
        page.locator("#mask-save").click()
        page.locator("#mask-said").get_by_text("Saved: dog/5.png").wait_for()
        drawn = np.asarray(Image.open(masks / "dog" / "5.png")) > 0
        assert drawn.shape == (36, 40)
        assert 0 < drawn.mean() < 0.3
        assert drawn[18, 20]

        # a mask that is there is shown where it belongs: saved as it is, it stays
        truth = np.asarray(Image.open(masks / "bee" / "2.png")) > 0
        page.locator("#mask-name input").fill("bee/2.png")
        page.get_by_role("option", name="bee/2.png").click()
        time.sleep(3)
        page.locator("#mask-save").click()
        page.locator("#mask-said").get_by_text("Saved: bee/2.png").wait_for()
        again = np.asarray(Image.open(masks / "bee" / "2.png")) > 0
        assert (again & truth).sum() / (again | truth).sum() > 0.95

        # what if
        page.get_by_role("tab", name="What if", exact=True).click()
        page.set_input_files("#swap-background input[type=file]", str(images / "bee" / "1.png"))
        page.locator("#swap-go").click()
        page.locator("#swap-numbers table").wait_for()
        assert "tuned" in page.locator("#swap-numbers").inner_text()

        # tune: stop, resume, open
        page.get_by_role("tab", name="Tune", exact=True).click()
        page.locator("#tune-epochs input").fill("2000")
        page.locator("#tune-start").click()
        page.locator("#tune-said").get_by_text(re.compile("epoch [1-9][0-9]* done")).wait_for()
        new = opened(browser, url)  # a tab that is opened later is at the run, and can stop it
        new.get_by_role("tab", name="Tune", exact=True).click()
        new.locator("#tune-said").get_by_text(re.compile("epoch [1-9][0-9]* done")).wait_for()
        new.locator("#tune-stop").click()
        new.locator("#tune-said").get_by_text("Stopped after epoch").wait_for()
        new.close()
        page.locator("#tune-said").get_by_text("Stopped after epoch").wait_for()
        (name,) = (name for name in tool.jobs.jobs if name.startswith("run"))
        run = tool.jobs.jobs[name].folder
        recipe = json.loads((run / "recipe.json").read_text())
        done = len((run / "history.jsonl").read_text().splitlines())
        (run / "recipe.json").write_text(json.dumps({**recipe, "epochs": done + 2}))
        page.locator("#tune-resume").click()
        page.locator("#tune-said").get_by_text("Done:").wait_for()
        page.locator("#tune-report").click()
        page.locator("#tune-link a").wait_for(timeout=180_000)
        with page.expect_popup() as popup:
            page.locator("#tune-link a").click()
        popup.value.get_by_role(
            "heading", name=re.compile("Tuned with|[Tt]he original model was kept")
        ).wait_for()
        popup.value.close()

        # audit: the worst image opens in Compare
        page.get_by_role("tab", name="Audit", exact=True).click()
        page.locator("#audit-start").click()
        page.locator("#audit-worst img").first.wait_for(timeout=180_000)
        page.locator("#audit-worst img").first.click()
        page.get_by_role("tab", name="Compare", exact=True, selected=True).wait_for()

        page.get_by_role("tab", name="Tune", exact=True).click()
        page.locator("#tune-open").click()
        page.get_by_role("tab", name="Compare", exact=True, selected=True).wait_for()
        assert "Not started" in (
            other.get_by_role("tab", name="Tune").click()
            or other.locator("#tune-said").inner_text()
        )

        # keyboard: the tabs and the first control can be reached
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body")
    assert {u.split("/")[2] for u in asked if u.startswith("http")} == {url.removeprefix("http://")}

    with serving(two_models, tmp_path / "work", Folders(images, masks)) as (
        url,
        tool,
    ):  # a later start has the run
        page = opened(browser, url)
        page.get_by_role("tab", name="Tune", exact=True).click()
        page.locator("#tune-run input").click()
        page.get_by_role("option", name=name, exact=True).click()
        page.locator("#tune-said").get_by_text("Done:").wait_for()
        page.locator("#tune-link a").wait_for()
        page.locator("#tune-open").click()
        page.get_by_role("tab", name="Compare", exact=True, selected=True).wait_for()
        page.set_input_files(upload, str(images / "cat" / "0.png"))
        page.locator("#compare-numbers [data-model=tuned]").wait_for()

        shutil.rmtree(recipe["model"])  # what the run can still show is shown
        page = opened(browser, url)
        page.get_by_role("tab", name="Tune", exact=True).click()
        page.locator("#tune-run input").click()
        page.get_by_role("option", name=name, exact=True).click()
        page.locator("#tune-said").get_by_text(recipe["model"]).wait_for()
        page.locator("#tune-link a").wait_for()
