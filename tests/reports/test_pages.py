"""Pages in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.makers import run, tuned


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
def test_the_pages_fit_a_phone_and_a_desktop_in_a_real_browser(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    folder = tuned(monkeypatch, model_folder, image_folders, tmp_path / "run")
    assert run(monkeypatch, "report", folder) == 0
    images, masks = image_folders
    audit = [
        "audit",
        "--model",
        model_folder,
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "audit",
    ]
    assert run(monkeypatch, *audit) == 0
    whole = ["run", *audit[1:-1], tmp_path / "whole", "--shots", 1, "--epochs", 1]
    assert run(monkeypatch, *whole) == 0
    probe = (
        "<script>addEventListener('load', () => { const all = [...document.images];"
        "const broken = all.filter(i => !i.naturalWidth).length;"
        "const needed = document.documentElement.scrollWidth;"
        "parent.document.title = ['seen', innerWidth, needed, all.length, broken].join(' ') "
        "})</script>"
    )
    pages = (folder / "report.html", tmp_path / "audit" / "audit.html")
    for page in (*pages, tmp_path / "whole" / "index.html"):
        text = page.read_text()
        copy = tmp_path / f"probe-{page.name}"
        for width in (400, 1300):
            # headless windows have a least width, so the page is looked at in a frame of the wanted
            # one
            inner = text.replace("</body>", f"{probe}</body>")
            frame = (
                f"<iframe style='border:0;width:{width}px;height:800px' "
                f"srcdoc='{_quoted(inner)}'></iframe>"
            )
            copy.write_text(f"<!doctype html><title>empty</title>{frame}")
            shown = subprocess.run(
                [
                    "chromium",
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                    "--disable-sync",
                    "--disable-component-update",
                    "--no-first-run",
                    f"--user-data-dir={tmp_path / 'profile'}",
                    "--window-size=1400,900",
                    "--virtual-time-budget=8000",
                    "--dump-dom",
                    copy.as_uri(),
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            ).stdout
            found = re.search(r"<title>seen (\d+) (\d+) (\d+) (\d+)</title>", shown)
            assert found, shown[:200]
            inside, needed, pictures, broken = map(int, found.groups())
            assert inside == width
            assert needed <= width, f"{page.name} at {width}: scrolls sideways"
            assert pictures > 5
            assert broken == 0


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&#39;")
