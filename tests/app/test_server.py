"""What the server of the app refuses."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path

import pytest

from refocus.app.folders import Folders
from tests.app.makers import GRADIO, serving
from tests.makers import ROOT


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
    """A client that names a file or an address in place of its upload gets nothing.

    Whatever it calls it.
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
