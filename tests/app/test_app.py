"""The app: what it computes, what it refuses, and the whole of it in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from refocus import Recipe, load
from refocus.app import looks
from refocus.app.folders import Folders
from refocus.app.jobs import Job, Jobs, Progress
from refocus.errors import InputError
from refocus.vit import loading
from tests.makers import ROOT

Build = Callable[..., nn.Module]
GRADIO = importlib.util.find_spec("gradio") is not None
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


# --- what it computes ---------------------------------------------------------------------------


def test_a_look_is_the_models_own(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    from refocus.data.transforms import eval_image
    from refocus.relevance.gae import explain

    model, image = tiny(), Image.open(image_folders[0] / "cat" / "0.png")
    seen = looks.look(model, image)
    found = explain(model, eval_image(model)(image)[None])
    best = int(found.targets[0])
    assert seen.explained == next(iter(seen.shares)) == ["ant", "bee", "cat", "dog"][best]
    assert seen.shares[seen.explained] == pytest.approx(
        float(found.logits[0].softmax(0)[best]), abs=1e-6
    )
    np.testing.assert_allclose(seen.relevance, found.relevance[0], atol=1e-6)
    assert seen.inside is None
    asked = looks.look(model, image, "dog")
    np.testing.assert_allclose(
        asked.relevance, explain(model, eval_image(model)(image)[None], 3).relevance[0], atol=1e-6
    )
    with pytest.raises(InputError, match="does not know"):
        looks.look(model, image, "zebra")


def test_relevance_on_the_object_and_beside_it_adds_up(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    model, image = tiny(), Image.open(image_folders[0] / "cat" / "0.png")
    mask = torch.zeros(1, 36, 40)
    mask[:, :, :20] = 1
    parts = [
        looks.look(model, image, mask=m).inside for m in (mask, 1 - mask, torch.ones(1, 36, 40))
    ]
    assert parts[0] + parts[1] == pytest.approx(1, abs=1e-3)
    assert parts[2] == pytest.approx(1)


def test_threshold_and_opacity() -> None:
    picture = np.full((4, 4, 3), 100, np.uint8)
    seen = looks.Look(picture, np.linspace(0, 1, 16).reshape(4, 4), {}, "x")
    assert np.array_equal(looks.drawn(seen, 0.0, 0.0), picture)
    half = looks.drawn(seen, 0.5, 0.6)
    assert np.array_equal(half[seen.relevance < 0.5], picture[seen.relevance < 0.5])
    assert (half[seen.relevance >= 0.5] != 100).any(-1).all()


def test_the_object_stays_when_the_background_goes(image_folders: tuple[Path, Path]) -> None:
    image = Image.open(image_folders[0] / "cat" / "0.png")
    mask = torch.zeros(1, 36, 40)
    mask[:, 10:26, 10:26] = 1
    other = Image.new("RGB", (80, 60), (0, 0, 255))
    swapped = np.asarray(looks.on_another_background(image, mask, other))
    assert np.array_equal(swapped[14:22, 14:22], np.asarray(image)[14:22, 14:22])
    assert np.array_equal(swapped[0, 0], [0, 0, 255])
    blurred = np.asarray(looks.on_another_background(image, mask, None)).astype(float)
    assert np.array_equal(blurred[14:22, 14:22], np.asarray(image)[14:22, 14:22])
    assert blurred[:6].std() < 0.5 * np.asarray(image)[:6].std()


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(40, 36), (30, 50), (301, 199), (1000, 640)])
def test_a_mask_goes_through_the_editor_unchanged(size: tuple[int, int]) -> None:
    from refocus.app.mask import _layer, painted

    mask = torch.zeros(1, size[1], size[0])
    mask[:, size[1] // 4 : size[1] // 2, size[0] // 5 : size[0] // 2] = 1
    found = painted({"layers": [_layer(mask, size)]}, size)
    truth = mask[0].numpy() > 0
    assert found.shape == truth.shape
    assert (found & truth).sum() / (found | truth).sum() > 0.97
    assert not painted({"layers": [_layer(None, size)]}, size).any()


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_one_model_is_shown_beside_the_image_and_two_beside_each_other() -> None:
    from refocus.app.compare import _overlays, _sides

    seen = looks.Look(
        np.full((20, 30, 3), 100, np.uint8),
        np.linspace(0, 1, 600).reshape(20, 30),
        {"cat": 1.0},
        "cat",
    )
    image, heat = _overlays({"model": seen}, 0.0, 0.6)
    assert image.size == heat.size == (672, 448)  # its own shape
    assert np.asarray(image).std() < 1 < np.asarray(heat).std()
    assert "image" in _sides({"model": seen})
    assert "tuned" in _sides({"original": seen, "tuned": seen})
    left, right = _overlays({"original": seen, "tuned": seen}, 0.0, 0.6)
    assert np.array_equal(np.asarray(left), np.asarray(right))
    assert _overlays({}, 0.0, 0.6) is None


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_compared_with_the_model_it_was_tuned_from(
    tiny: Build, two_models: dict[str, str], tmp_path: Path
) -> None:
    from refocus.app.parts import Tool

    other = tiny()
    torch.nn.init.constant_(other.head.bias, 7)
    loading.save(other, tmp_path / "other")
    run = tmp_path / "work" / "run-1"
    shutil.copytree(two_models["model"], run / "model")
    recipe = Recipe(model=str(tmp_path / "other"), images="images", masks="masks")
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    found = Tool(two_models, tmp_path / "work").models("run-1")
    assert list(found) == ["original", "tuned"]
    assert found["original"].head.bias.tolist() == [7.0] * 4
    assert found["tuned"].head.bias.tolist() != [7.0] * 4


# --- folders ------------------------------------------------------------------------------------


def test_masks_are_saved_where_tune_reads_them_and_nothing_is_lost(
    image_folders: tuple[Path, Path],
) -> None:
    images, masks = image_folders
    folders = Folders(images, masks)
    before = (masks / "cat" / "0.png").read_bytes()
    drawn = np.zeros((36, 40), bool)
    drawn[3:9, 4:12] = True
    assert folders.save("cat/0.png", drawn) == masks.resolve() / "cat" / "0.png"
    assert np.array_equal(folders.mask("cat/0.png")[0].numpy() > 0.5, drawn)
    assert (masks / ".replaced" / "cat" / "0.0.png").read_bytes() == before
    folders.save("cat/0.png", ~drawn)
    assert np.array_equal(
        np.asarray(Image.open(masks / ".replaced" / "cat" / "0.1.png")) > 0, drawn
    )
    for wrong in (np.zeros((36, 40), bool), np.ones((36, 40), bool), np.ones((3, 3), bool)):
        with pytest.raises(InputError):
            folders.save("cat/0.png", wrong)


def test_names_that_look_like_patterns(tmp_path: Path, image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    for kind in (images, masks):
        shutil.copy(kind / "cat" / "0.png", kind / "cat" / "img[1].png")
    folders = Folders(images, masks)
    before = (masks / "cat" / "img[1].png").read_bytes()
    for row in (3, 6):
        drawn = np.zeros((36, 40), bool)
        drawn[row, 4:12] = True
        folders.save("cat/img[1].png", drawn)
    kept = sorted((masks / ".replaced" / "cat").iterdir())
    assert len(kept) == 2
    assert kept[0].read_bytes() == before


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "cat/../../secret.png", "cat/9.png", ""]
)
def test_what_lies_outside_of_the_folders_is_not_served(
    name: str, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    Image.new("RGB", (4, 4)).save(images.parent / "secret.png")
    folders = Folders(images, masks)
    for ask in (folders.image, folders.mask, lambda n: folders.save(n, np.eye(36, 40, dtype=bool))):
        with pytest.raises(InputError, match="not an image of the folder"):
            ask(name)


def test_the_most_doubtful_masks_come_first(image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    rows = [{"mask": "bee/2.png", "score": 0.1}, {"mask": "ant/0.png", "score": 0.4}]
    (masks / "masks.json").write_text(json.dumps({"masks": rows}))
    (masks / "dog" / "5.png").unlink()
    assert Folders(images, masks).doubtful()[:4] == [
        "dog/5.png",
        "bee/2.png",
        "ant/0.png",
        "ant/1.png",
    ]


# --- jobs ---------------------------------------------------------------------------------------


def wait_until(done: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_run_is_stopped_and_goes_on(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    jobs, run = Jobs(tmp_path), tmp_path / "run"
    command = [
        "tune",
        "--model",
        str(model_folder),
        "--images",
        str(images),
        "--masks",
        str(masks),
        "--out",
        str(run),
    ]
    job = jobs.start("one", [*command, "--epochs", "400", "--shots", "2"], run)
    with pytest.raises(InputError, match="another job is running"):
        jobs.start("two", command, tmp_path / "two")
    progress = Progress(run)
    wait_until(lambda: (run / "checkpoints" / "last.pt").exists())
    tiles = progress.maps()
    assert len(tiles) == 4
    assert tiles[0][0].shape == (32, 32, 3)
    wait_until(lambda: len(progress.losses()["validation"]) > 3)
    changed = progress.maps()
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(tiles, changed, strict=True))
    job.stop()
    assert not job.running
    assert not job.complete
    assert not job.failed
    done = len(progress.losses()["validation"])
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "epochs": done + 3}))
    job = jobs.start("one", ["tune", "--resume", str(run)], run)
    wait_until(lambda: not job.running)
    assert job.complete, job.words
    assert len(progress.losses()["validation"]) == done + 3
    wrong = jobs.start("bad", ["tune", "--resume", str(tmp_path)], tmp_path)
    wait_until(lambda: not wrong.running)
    assert wrong.failed
    wait_until(lambda: "not a run folder" in wrong.words)


def test_runs_of_an_earlier_start(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    assert jobs.runs() == []
    for name, files in (
        ("run-1", ["recipe.json"]),
        ("run-2", ["recipe.json", "manifest.json"]),
        ("run-3", []),
        ("x", ["recipe.json"]),
    ):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    assert jobs.runs() == ["run-2", "run-1"]
    assert [jobs[name].complete for name in jobs.runs()] == [True, False]
    assert not any(jobs[name].running or jobs[name].failed for name in jobs.runs())
    assert jobs.running_run() is None
    jobs.jobs["report-of-run-1"] = jobs.jobs["run-4"] = Job([], tmp_path)  # just started
    assert jobs.runs() == ["run-4", "run-2", "run-1"]
    for name in ("run-3", "x", "../run-1", ""):
        assert name not in jobs
        with pytest.raises(KeyError):
            jobs[name]


# --- the server and the page --------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(refs: dict[str, str], work: Path, folders: Folders) -> Iterator[tuple[str, Any]]:
    from refocus.app.parts import Tool
    from refocus.app.server import Server

    tool, port = Tool(refs, work, folders), free_port()

    def find(
        image: Image.Image,
    ) -> torch.Tensor:  # no backbone is loaded in these tests: the middle of the image
        mask = torch.zeros(1, image.height, image.width)
        mask[:, image.height // 4 : -image.height // 4, image.width // 4 : -image.width // 4] = 1
        return mask

    tool.find = find

    async def made() -> (
        Server
    ):  # outside of a loop Gradio opens some of its own and leaves them open
        return Server(tool, "127.0.0.1", port)

    with ThreadPoolExecutor(1) as another:  # in this thread Playwright may have one
        server = another.submit(asyncio.run, made()).result()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}", tool
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def two_models(tiny: Build, tmp_path: Path) -> dict[str, str]:
    for name in ("before", "after"):
        loading.save(tiny(), tmp_path / name)
    return {"model": str(tmp_path / "after"), "against": str(tmp_path / "before")}


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_files_hosts_and_pages_that_are_refused(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    import httpx

    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with serving(two_models, tmp_path / "work", Folders(*image_folders)) as (url, tool):
        assert httpx.get(url).status_code == 200
        policy = httpx.get(url).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        for path in (
            f"/gradio_api/file={secret}",
            f"/gradio_api/file={image_folders[0]}/cat/0.png",
            "/pages/x/report.html",
        ):
            assert httpx.get(url + path).status_code in (403, 404), path
        assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 400
        tool.jobs.jobs["run"] = type("Job", (), {"folder": tmp_path, "stop": lambda self: None})()
        (tmp_path / "report.html").write_text("<p>report</p>")
        assert httpx.get(url + "/pages/run/report.html").text == "<p>report</p>"
        assert httpx.get(url + "/pages/run/secret.txt").status_code == 404
        with socket.socket() as s:  # bound to this machine's own address alone
            host = socket.gethostbyname(socket.gethostname())
            if not host.startswith("127."):
                assert s.connect_ex((host, int(url.rsplit(":", 1)[1]))) != 0


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_only_uploads_are_read(
    two_models: dict[str, str],
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that names a file of this machine, or an address, in place of its upload gets
    nothing, whatever it calls it.
    """
    import httpx
    from gradio import processing_utils

    monkeypatch.setattr(
        tempfile, "tempdir", str(tmp_path / "temp")
    )  # what lies in the folder for temporary files is always allowed
    (tmp_path / "temp").mkdir()
    secret = ROOT / "tests" / "golden" / "corruptions.png"
    with serving(two_models, tmp_path / "work", Folders(*image_folders)) as (url, _):
        config = httpx.get(url + "/config").json()
        kinds = {c["id"]: c["type"] for c in config["components"]}
        asked = 0
        for dependency in config["dependencies"]:
            uploads = [
                kinds[i] for i in dependency["inputs"] if kinds[i] in ("image", "imageeditor")
            ]
            if not uploads or not dependency["backend_fn"]:
                continue
            for path in (str(secret), "/etc/hostname", "https://example.com/a.png"):
                for extra in ({}, {"orig_name": "x.svg"}):
                    file = {"path": path, "meta": {"_type": "gradio.FileData"}, **extra}
                    values = {
                        "image": file,
                        "imageeditor": {"background": file, "layers": [file], "composite": None},
                    }
                    data = [values.get(kinds[i]) for i in dependency["inputs"]]
                    session = f"s{asked}"
                    body = {"data": data, "fn_index": dependency["id"], "session_hash": session}
                    joined = httpx.post(url + "/gradio_api/queue/join", json=body)
                    asked += 1
                    if joined.status_code != 200:
                        continue
                    with httpx.stream(
                        "GET", url + f"/gradio_api/queue/data?session_hash={session}", timeout=60
                    ) as lines:
                        messages = [
                            json.loads(x.removeprefix("data: "))
                            for x in lines.iter_lines()
                            if x.startswith("data: ")
                        ]
                    done = next(m for m in messages if m["msg"] == "process_completed")
                    assert not done["success"], (path, extra, dependency["id"])
        assert asked >= 18
        assert processing_utils.async_ssrf_protected_download.__module__ == "refocus.app.server"


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
def test_addresses_that_cannot_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus.cli.app import _check_address

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot be listened on"):
            _check_address("127.0.0.1", port)
    _check_address("127.0.0.1", free_port())
    for host, message in (("::1", "IPv6"), ("no-such-host.invalid", "unknown")):
        with pytest.raises(InputError, match=message):
            _check_address(host, 7860)


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
def test_the_app_in_a_browser(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path, browser: Any
) -> None:
    """Upload, compare, draw, swap, tune, stop, resume, open the result; two tabs; nothing is asked
    of other hosts.
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
        numbers.locator("[data-model=tuned]").wait_for()
        seen = {
            t: looks.look(load(r), Image.open(images / "cat" / "0.png"))
            for t, r in zip(("tuned", "original"), two_models.values(), strict=True)
        }
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
        assert (
            other.locator("#compare-numbers [data-model=tuned]").count() == 0
        )  # the other tab has seen nothing of it

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
        popup.value.get_by_role("heading", name="Refocused with").wait_for()
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
