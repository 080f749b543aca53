"""The package that docs/extending.md shows, installed as pip leaves it, works under its names."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from refocus.vit import loading
from tests.makers import ROOT, make_images

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

CODE = """
import sys
import torch, refocus
from refocus.cli.main import main
from refocus.objectives.registry import OBJECTIVES

assert "refocus_more" not in sys.modules and "outside" in OBJECTIVES
model = refocus.load("model")
images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 7])
masks = torch.zeros(2, 1, 32, 32)
masks[:, :, 8:24, 8:24] = 1
for recompute in (False, True):
    terms = refocus.objective("outside", recompute=recompute)(model, images, masks, labels)
    assert set(terms) == {"loss", "outside", "classification"}
    model.zero_grad()
    terms["outside"].backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().max() > 0
for arguments in (
    "probe --model model --images wnids/images --kind mirror --out probes",
    "evaluate --model model --on numbered=images --out proof",
):
    sys.argv = ["refocus", *arguments.split()]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
"""


def block(kind: str, marker: str) -> str:
    """The fenced block of a kind that holds a text."""
    (found,) = (b for b in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S) if marker in b)
    return str(found)


def install(site: Path) -> None:
    """The package's code and its entry points, which pip writes as INI."""
    site.mkdir()
    (site / "refocus_more.py").write_text(block("python", "OUTSIDE"), encoding="utf-8")
    info = site / "refocus_more-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refocus-more\nVersion: 1.0\n")
    listed = block("toml", "entry-points")
    points = re.sub(r'\[project\.entry-points\."([\w.]+)"\]', r"[\1]", listed).replace('"', "")
    (info / "entry_points.txt").write_text(points)


@pytest.mark.slow
def test_the_package_of_the_page_adds_an_objective_a_probe_and_a_suite(
    tmp_path: Path, tiny: Callable[..., nn.Module]
) -> None:
    install(tmp_path / "site")
    loading.save(tiny(num_classes=1000), tmp_path / "model")
    make_images(tmp_path, ["class0", "class1", "class7"], count=2)
    make_images(tmp_path / "wnids", ["n01440764", "n01443537"], count=2)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n{CODE}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "probes" / "mirror").is_dir()
    assert "numbered" in (tmp_path / "proof" / "results.json").read_text(encoding="utf-8")
