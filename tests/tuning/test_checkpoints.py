"""Resuming ends with the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import refocus
from refocus import Recipe
from refocus.objectives import registry
from refocus.tuning import tune
from refocus.tuning.checkpoints import Checkpoint, Position
from tests.tuning.makers import last_weights, same, weights


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.OBJECTIVES)
def test_resume_ends_with_the_same_bits(
    recipe: Recipe, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, objective=name)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    refocus.tune(recipe, whole, progress=False)

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, cut, on_epoch=stop, progress=False)
    assert not (cut / "manifest.json").exists()
    with (cut / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "half')  # as a crash in the middle of an epoch's records leaves it
    monkeypatch.chdir(tmp_path)
    torch.rand(7)  # whatever happened to the generator in between must not matter
    refocus.resume(cut, progress=False)
    assert same(weights(whole), weights(cut))
    assert same(last_weights(whole), last_weights(cut))
    assert same(
        load_file(whole / "model" / "model.safetensors"),
        load_file(cut / "model" / "model.safetensors"),
    )
    assert (whole / "history.jsonl").read_text() == (cut / "history.jsonl").read_text()
    assert (whole / "results.json").read_text() == (cut / "results.json").read_text()


@pytest.mark.slow
def test_resume_with_dropout_needs_the_generator_state(
    recipe: Recipe, tiny: Any, tmp_path: Path
) -> None:
    refocus.save(tiny(), tmp_path / "dropout")
    config = json.loads((tmp_path / "dropout" / "config.json").read_text())
    config["model_args"]["proj_drop_rate"] = 0.3  # timm does not write it of itself
    (tmp_path / "dropout" / "config.json").write_text(json.dumps(config))
    assert refocus.load(tmp_path / "dropout").blocks[0].mlp.drop1.p == 0.3
    recipe = replace(recipe, model=str(tmp_path / "dropout"))
    refocus.tune(recipe, tmp_path / "whole", progress=False)

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, tmp_path / "cut", on_epoch=stop, progress=False)
    refocus.resume(tmp_path / "cut", progress=False)
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "cut"))


@pytest.mark.slow
def test_the_same_call_does_what_is_left_of_a_run(recipe: Recipe, tmp_path: Path) -> None:
    def stop(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    whole = tune.tune(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, tmp_path / "cut", on_epoch=stop, progress=False)
    assert tune.tune(recipe, tmp_path / "cut", progress=False) == whole
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert tune.tune(recipe, tmp_path / "whole", progress=False) == whole
    with pytest.raises(
        refocus.InputError, match=r"whole: was started with other .*\(epochs: \d+ then, 5 now;"
    ):
        tune.tune(replace(recipe, epochs=5), tmp_path / "whole", progress=False)


@pytest.mark.slow
def test_resume_refuses_what_is_complete_or_no_run(recipe: Recipe, tmp_path: Path) -> None:
    refocus.tune(replace(recipe, epochs=1), tmp_path / "run", progress=False)
    with pytest.raises(refocus.InputError, match="this run is complete"):
        refocus.resume(tmp_path / "run")
    with pytest.raises(refocus.InputError, match="not a run folder"):
        refocus.resume(tmp_path / "nowhere")


def test_a_run_of_two_gpus_goes_on_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    kept = Checkpoint(model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1))
    states = [torch.tensor([n], dtype=torch.uint8) for n in (1, 2)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    kept.write(tmp_path / "last.pt", Position(3, 1, 0.5))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    put_back = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, n: put_back.update({n: s.tolist()}))
    assert kept.read(tmp_path / "last.pt") == Position(3, 1, 0.5)
    assert put_back == {0: [1]}
