"""Models of the user's own: a module that describes itself, and code that no folder may name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import refocus
from refocus.tuning import course
from refocus.tuning.trainable import restrict
from refocus.vit import own_models
from refocus.vit.classes import label_names, name_outputs
from tests.makers import DOCS, NAMES, invoke
from tests.own_vit import OwnViT


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_module_that_describes_itself(by_hand: bool) -> None:
    torch.manual_seed(0)
    model, images = OwnViT(by_hand), torch.randn(2, 3, 32, 40)
    other = OwnViT(not by_hand)
    other.load_state_dict(model.state_dict())
    found = refocus.explain(model, images, [0, 3]).patches
    assert found.shape == (2, 4, 5)
    torch.testing.assert_close(
        found, refocus.explain(other, images, [0, 3]).patches
    )  # either way of forming maps
    odd = torch.randn(1, 3, 38, 45)
    assert refocus.explain(model, odd).covered == (38, 45)  # all, as long as it does not say
    model.patch = (8, 8)
    assert refocus.explain(model, odd).covered == (32, 40)
    masks = torch.zeros(2, 1, 32, 40)
    refocus.objective("relevance")(model, images, masks, torch.tensor([0, 1]))["loss"].backward()
    assert model.blocks[0].qkv.weight.grad.abs().sum() > 0
    with pytest.raises(refocus.InputError, match="know its blocks"):
        restrict(model, last_blocks=1)


@pytest.mark.parametrize("missing", ["input_size", "mean", "std", "pretrained_cfg"])
def test_preprocessing_is_not_guessed_once_a_model_is_named(missing: str) -> None:
    model = OwnViT()
    model.pretrained_cfg.pop(missing, None)
    if missing == "pretrained_cfg":
        model.pretrained_cfg.clear()
    name_outputs(model, list("abcd"), "here")
    with pytest.raises(refocus.InputError, match=f"or give .*{missing}"):
        refocus.eval_image(model)


def test_a_timm_model_that_code_changes_is_made_by_that_code_again(tmp_path: Path) -> None:
    model, images = refocus.load("py:tests.own_vit:changed", names=NAMES), torch.randn(1, 3, 32, 32)
    torch.nn.init.normal_(model.head.weight)
    refocus.save(model, tmp_path / "model")
    again = refocus.load(f"py:tests.own_vit:changed@{tmp_path / 'model'}")
    assert torch.equal(again(images), model(images))
    assert label_names(again) == NAMES


def test_the_example_of_the_docs_runs_and_is_under_15_lines() -> None:
    code = re.search(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.S)
    assert code is not None
    described = code.group(1).split("prefix = 1", 1)[1]
    assert sum(bool(line.strip()) for line in described.splitlines()) < 15
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    example = names["MyViT"]()
    assert example.grid(32, 48) == (2, 3)
    assert example.readout(5).tolist() == [1, 0, 0, 0, 0]
    with example.attention_maps() as maps:
        assert maps == []


def test_a_function_that_returns_one_module_each_time_gives_copies() -> None:
    """Else what tunes one would change the original that it is compared with."""
    first, second = (refocus.load("py:tests.own_vit:shared") for _ in range(2))
    with torch.no_grad():
        first.head.weight.zero_()
    assert second.head.weight.abs().sum() > 0
    assert refocus.load("py:tests.own_vit:shared").head.weight.abs().sum() > 0


def test_a_function_that_returns_other_weights_each_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(refocus.InputError, match=r"unseeded: .* other weights each time \(patches"):
        refocus.load("py:tests.own_vit:unseeded")
    refocus.save(OwnViT(), tmp_path / "model")
    kept = f"py:tests.own_vit:unseeded@{tmp_path / 'model'}"  # its weights are the folder's
    once, again = (refocus.load(kept).state_dict() for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_what_an_own_model_cannot_do_is_refused_before_a_folder_is_made(
    tmp_path: Path, image_folders: tuple[Path, Path]
) -> None:
    images, masks = map(str, image_folders)
    recipe = refocus.Recipe("py:tests.own_vit:build", images, masks, shots=1, recompute=True)
    with pytest.raises(refocus.InputError, match="records its own maps"):
        refocus.tune(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_alone_runs_no_code(
    tmp_path: Path, image_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = image_folders
    made_by, folder = "py:tests.own_vit:build", tmp_path / "run"
    recipe = refocus.Recipe(
        made_by,
        str(images),
        str(masks),
        epochs=2,
        shots=1,
        device="cpu",
        do_no_harm=False,
    )
    monkeypatch.setattr(course, "conclude", lambda *_: {})  # interrupted before its end
    refocus.tune(recipe, folder, progress=False)
    monkeypatch.undo()
    with pytest.raises(refocus.InputError, match=f"add code={made_by}"):
        refocus.resume(folder, progress=False)
    with pytest.raises(refocus.InputError, match="add code="):
        refocus.resume(folder, code="py:another:build", progress=False)
    invoke("tune", "--resume", folder, "--code", made_by)
    with pytest.raises(refocus.InputError, match="add --code"):
        invoke("report", folder, "--device", "cpu")
    invoke("report", folder, "--device", "cpu", "--code", made_by, "--most", 4)
    assert (folder / "report.html").is_file()


def test_a_folder_cannot_name_code_to_run(tmp_path: Path) -> None:
    refocus.save(OwnViT(), tmp_path / "saved")
    with pytest.raises(refocus.InputError, match="py:MODULE:FUNCTION@"):
        refocus.load(tmp_path / "saved")


def test_weights_that_two_parts_share_are_saved(tmp_path: Path) -> None:
    model: Any = OwnViT()
    model.again = model.blocks[0].qkv
    own_models.save(model, tmp_path / "saved")
    kept = load_file(tmp_path / "saved" / "model.safetensors")
    assert torch.equal(kept["again.weight"], kept["blocks.0.qkv.weight"])
    model.load_state_dict(kept)
