"""ONNX files give the answers of the torch model, or are not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from refocus.errors import InputError
from refocus.vit.loading import preprocessing
from refocus.vit.onnx import export_onnx
from tests.makers import NAMES, Build, run
from tests.zoo import build

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("ViT", "class token"),
        ("ViT", "attention pooling"),
        ("EVA", "EVA-02"),
        ("BEiT", "bias of each block"),
        ("ViT (transformers)", "ViT"),
        ("ViT (torchvision)", ""),
    ],
)
def test_families(family: str, variant: str, tmp_path: Path) -> None:
    model = build(family, variant)
    made = export_onnx(model, tmp_path / "model.onnx")
    assert made.difference < 1e-4
    session = onnxruntime.InferenceSession(str(made.file), providers=["CPUExecutionProvider"])
    images = torch.randn(5, *model.pretrained_cfg["input_size"])  # type: ignore[index]
    found = model(images)
    wanted = getattr(found, "logits", found).detach().numpy()
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.abs(wanted).max())
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == NAMES
    mean = json.loads(said["preprocessing"])["mean"]
    assert mean == pytest.approx(preprocessing(model)["mean"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]  # no second file with weights


@pytest.mark.slow
def test_an_answer_that_differs_leaves_no_file(tiny: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"differ from the model's by .*at most tolerance 0"):
        export_onnx(tiny(), tmp_path / "model.onnx", tolerance=0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(InputError, match="exists and is not overwritten"):
        export_onnx(tiny(), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"below\.onnx: cannot be written \((Not a dir|File exi)"):
        export_onnx(tiny(), tmp_path / "model.onnx" / "below.onnx")


@pytest.mark.slow
def test_the_command_takes_a_run(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "selection.json").write_text("{}")
    model_folder.rename(tmp_path / "run" / "model")
    assert (
        run(monkeypatch, "export", tmp_path / "run", "--onnx", tmp_path / "x" / "tuned.onnx") == 0
    )
    assert "tolerance 0.0001" in capsys.readouterr().out
    assert (tmp_path / "x" / "tuned.onnx").stat().st_size > 1000
