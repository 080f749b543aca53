"""`--precision`: what networks answer in bfloat16, and what stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import refocus
from refocus import AuditSettings, InputError, ProbeSettings, Recipe, ReportSettings
from refocus.evaluation.plan import Plan
from refocus.evaluation.prove import evaluate_suites
from refocus.relevance.answers import logits_of
from refocus.reports import explanations
from refocus.reports.card import write_card
from refocus.tuning import course
from refocus.vit.precision import check_precision, computing
from tests.makers import Build, make_images

BOTH = torch.float32, torch.bfloat16


@contextmanager
def linear_layers() -> Iterator[set[torch.dtype]]:
    """The number formats that linear layers compute in meanwhile."""
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen.add(output.dtype)

    handle = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def test_answers_are_those_of_autocast_in_float32(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    before = logits_of(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = logits_of(model, images)  # a caller's own autocast stays in force
    with computing("bf16"):
        found = logits_of(model, images)
    assert (wanted.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(found, wanted.float())
    assert not torch.equal(found, before)
    assert torch.equal(logits_of(model, images), before)


def evaluated(precision: str, model: Path, images: Path, masks: Path, out: Path) -> Any:
    plan = Plan({"own": images}, {"own": masks}, ("only-fg",), precision=precision, most=4)
    evaluate_suites(model, plan, out)
    return json.loads((out / "results.json").read_text())


def audited(precision: str, model: Path, images: Path, masks: Path, out: Path) -> Any:
    settings = AuditSettings(most=4, precision=precision)
    refocus.audit(model, images, out, masks=masks, settings=settings)
    assert ("Computed in bfloat16" in (out / "audit.html").read_text()) == (precision == "bf16")
    return json.loads((out / "audit.json").read_text())


def probed(precision: str, model: Path, images: Path, _masks: Path, out: Path) -> Any:
    settings = ProbeSettings(kinds=("cutout",), most=4, precision=precision)
    refocus.probe(model, out, settings, images=images)
    assert ("Computed in bfloat16" in (out / "probes.html").read_text()) == (precision == "bf16")
    return json.loads((out / "cutout" / "result.json").read_text())


def explained(precision: str, model: Path, images: Path, _masks: Path, out: Path) -> Any:
    file = images / "cat" / "0.png"
    explanations.write([file], {"model": str(model)}, out, precision=precision)
    return json.loads((out / "explanations.json").read_text())


@pytest.mark.parametrize("measure", [evaluated, audited, probed, explained])
def test_a_folder_is_of_one_precision_and_says_which(
    measure: Callable[..., Any],
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    for precision, dtype, other in zip(("fp32", "bf16"), BOTH, ("bf16", "fp32"), strict=True):
        out = tmp_path / precision
        with linear_layers() as seen:
            found = measure(precision, model_folder, *image_folders, out)
        assert seen == {dtype}
        assert found["precision"] == precision
        with pytest.raises(InputError, match=r"other models, folders or options \(precision: "):
            measure(other, model_folder, *image_folders, out)
    kept = next((tmp_path / "fp32").rglob("settings.json"))
    assert "precision" not in json.loads(kept.read_text())  # as earlier versions kept it


def test_a_report_measures_in_bfloat16_and_says_so(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = map(str, image_folders)
    other, _ = make_images(tmp_path / "other", count=2, seed=9)  # what was tuned on is left out
    recipe = Recipe(str(model_folder), images, masks, objective="finetune", epochs=1, fewer=True)
    refocus.tune(recipe, tmp_path / "run", progress=False)
    settings = ReportSettings({"own": str(other)}, precision="bf16")
    with linear_layers() as seen:
        found = refocus.report(tmp_path / "run", settings)
    assert seen == {torch.bfloat16}
    assert found.evaluation is not None
    assert found.evaluation.precision == "bf16"
    for page in (found.page, found.page.with_suffix(".md")):
        assert "computed in bfloat16" in page.read_text()
    assert "Computed in bfloat16: own." in write_card(tmp_path / "run").read_text()
    (tmp_path / "run" / "README.md").unlink()
    # once measured in float32 as well, a card has those numbers
    (tmp_path / "run" / "proof").rename(tmp_path / "run" / "proof-2")
    copytree(tmp_path / "run" / "proof-2", tmp_path / "run" / "proof")
    file = tmp_path / "run" / "proof" / "results.json"
    exact = json.loads(file.read_text())
    top1 = exact["suites"]["own"]["protocols"]["standard"]["model"]["top1"]
    exact["precision"], top1["value"] = "fp32", 12.34
    file.write_text(json.dumps(exact))
    text = write_card(tmp_path / "run").read_text()
    assert "bfloat16" not in text
    assert "| 12.3 |" in text


def test_what_a_machine_cannot_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(course, "pick_device", lambda _: torch.device("cuda"))
    recipe = Recipe("m", "i", "k", precision="bf16")
    for refused in (
        lambda: check_precision("bf16", torch.device("cuda")),
        lambda: course.accelerator_for(recipe),
    ):
        with pytest.raises(InputError, match="precision bf16: this machine's cuda has none"):
            refused()
    check_precision("fp32", torch.device("cuda"))
    check_precision("bf16", torch.device("cpu"))
    with pytest.raises(InputError, match="precision half: must be fp32 or bf16"):
        check_precision("half", torch.device("cpu"))
