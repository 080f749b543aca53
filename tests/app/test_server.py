"""What the server of the app refuses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from refocus.app.folders import Folders
from refocus.errors import InputError
from tests.app.makers import GRADIO, serving
from tests.makers import ROOT


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_images_without_a_folder_of_masks_are_refused() -> None:
    from refocus.app.server import AppSettings, prepared

    with pytest.raises(InputError, match=r"^images and masks: .*the tab Mask creates a masks"):
        prepared(AppSettings("m", images=Path("images")))


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
        for folder in ("audit", "other"):  # pages of the stages of `refocus run`, and no others
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "audit.html").write_text("<p>audit</p>")
        assert httpx.get(url + "/pages/run/audit/audit.html").text == "<p>audit</p>"
        for path in ("other/audit.html", "audit/../secret.txt", "audit/..%2Fsecret.txt", "audit"):
            assert httpx.get(url + "/pages/run/" + path).status_code == 404, path
        with socket.socket() as s:  # bound to this machine's own address alone
            host = socket.gethostbyname(socket.gethostname())
            if not host.startswith("127."):
                assert s.connect_ex((host, int(url.rsplit(":", 1)[1]))) != 0


def ask(url: str, number: int, data: list[Any], session: str) -> dict[str, Any]:
    """Send an event as the page does, through the queue; what came of it."""
    import httpx

    body = {"data": data, "fn_index": number, "session_hash": session}
    joined = httpx.post(url + "/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return {"success": False, "output": {"error": "not taken"}}
    address = url + f"/gradio_api/queue/data?session_hash={session}"
    with httpx.stream("GET", address, timeout=20) as lines:
        messages = [
            json.loads(x.removeprefix("data: "))
            for x in lines.iter_lines()
            if x.startswith("data:")
        ]
    return next(m for m in messages if m["msg"] == "process_completed")


def foreign_files(tmp_path: Path, cache: Path) -> dict[str, str]:
    """Kind -> path that no event may read."""
    secret = ROOT / "tests" / "golden" / "corruptions.png"
    (cache / "link.png").symlink_to(secret)
    for place in (cache / "fifo.png", tmp_path / "fifo.png"):
        os.mkfifo(place)
    return {
        "file": str(secret),
        "system's file": "/etc/hostname",
        "link": str(cache / "link.png"),
        "fifo": str(cache / "fifo.png"),
        "foreign fifo": str(tmp_path / "fifo.png"),
        "folder": str(cache),
        "climbing": f"{cache}/../../secret.png",
        "address": "https://example.com/a.png",
    }


@pytest.mark.slow
@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_no_event_reads_a_file_that_was_not_uploaded(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Whatever the file is, whatever a client calls it, and whichever event is given it.

    With a mark Gradio checks it too; without one (`{"path": ...}` alone) only refocus does.
    """
    import httpx
    from gradio import processing_utils

    shutil.copy(ROOT / "tests" / "golden" / "corruptions.png", tmp_path / "secret.png")
    marks: tuple[dict[str, Any], ...] = ({}, {"meta": {"_type": "gradio.FileData"}})
    marks += ({"orig_name": "x.svg"}, {"url": "data:,", "meta": None})
    with serving(two_models, tmp_path / "work", Folders(*image_folders)) as (url, tool):
        paths = foreign_files(tmp_path, tool.uploads.folder)
        config = httpx.get(url + "/config").json()
        events = [d for d in config["dependencies"] if d["backend_fn"] and d["inputs"]]
        assert len(events) > 15
        for event in events:
            for number, (kind, path) in enumerate(paths.items()):
                file = {"path": path, **marks[number % len(marks)]}
                editor = {"background": None, "layers": [file], "composite": None}
                data = [(file, editor)[(event["id"] + number) % 2] for _ in event["inputs"]]
                found = ask(url, event["id"], data, f"s{event['id']}-{number}")
                assert not found["success"], (event["targets"], kind)
                assert "only files that were uploaded" in found["output"]["error"]
        assert processing_utils.async_ssrf_protected_download.__module__ == "refocus.app.server"


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_an_upload_is_read_and_kept_from_others(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    import httpx

    with serving(two_models, tmp_path / "work", Folders(*image_folders)) as (url, tool):
        with (image_folders[0] / "cat" / "0.png").open("rb") as file:
            sent = {"files": ("0.png", file, "image/png")}
            refused = httpx.post(
                url + "/gradio_api/upload", files=sent, headers={"origin": "http://evil.example"}
            )
            assert refused.status_code == 403
            assert not list(tool.uploads.folder.rglob("0.png"))
            file.seek(0)
            (path,) = httpx.post(
                url + "/gradio_api/upload", files=sent, headers={"origin": url}
            ).json()
        assert Path(path).is_relative_to(tool.uploads.folder)
        assert stat.S_IMODE(tool.uploads.folder.stat().st_mode) == 0o700
        config = httpx.get(url + "/config").json()
        kinds = {c["id"]: c["type"] for c in config["components"]}
        sliders = {i for i, kind in kinds.items() if kind == "imageslider"}
        compare = next(d for d in config["dependencies"] if sliders & set(d["outputs"]))
        values = {"image": {"path": path, "meta": {"_type": "gradio.FileData"}}, "checkbox": False}
        values |= {"dropdown": "the model's own prediction", "slider": 0.5}
        data = [values.get(kinds[i]) for i in compare["inputs"]]
        found = ask(url, compare["id"], data, "own")
        assert found["success"], found
        assert "data-model" in json.dumps(found["output"])
        assert stat.S_IMODE(tool.downloads.folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_an_open_page_does_not_hold_the_server(
    two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Gradio's page keeps a connection for as long as it is open."""
    import httpx

    with ExitStack() as left, serving(two_models, tmp_path, Folders(*image_folders)) as (url, _):
        page = httpx.stream("GET", f"{url}/gradio_api/heartbeat/session", timeout=60)
        assert left.enter_context(page).status_code == 200
