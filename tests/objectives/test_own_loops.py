"""Training loops of your own: the page's code runs, and masks stay masks."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import refocus
from refocus.errors import InputError
from refocus.masks.trust import digest
from refocus.vit.loading import load, save
from tests.makers import DOCS, make_images
from tests.zoo import build

PAGE = (DOCS / "own-loops.md").read_text(encoding="utf-8")
HEAD, PLAIN, LIGHTNING, TRAINER = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_images(tmp_path, count=3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def ran(code: str, family: str, place: Path) -> dict[str, Any]:
    """Names that the page's code defines; the weights before it are among them."""
    save(build(family, "class token" if family == "ViT" else "ViT"), place / "model")
    names: dict[str, Any] = {"__name__": "page"}
    exec(HEAD, names)
    names["before"] = weights(names["model"])
    exec(code, names)
    return names


def moved(names: dict[str, Any]) -> bool:
    after = names["model"].state_dict()
    return any(not torch.equal(value, after[name]) for name, value in names["before"].items())


def test_the_plain_loop(place: Path) -> None:
    names = ran(PLAIN, "ViT", place)
    assert moved(names)
    assert isinstance(names["batch"]["masks"], tv_tensors.Mask)
    assert set(names["terms"]) >= {"loss", "classification"}


@pytest.mark.slow
def test_lightning(place: Path) -> None:
    pytest.importorskip("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own: few workers, few batches
        names = ran(LIGHTNING, "ViT", place)
    assert moved(names)
    assert set(names["trainer"].logged_metrics) >= {"loss", "classification"}


@pytest.mark.slow
def test_transformers_trainer(place: Path) -> None:
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ran(TRAINER, "ViT (transformers)", place)
        trainer = names["trainer"]
        found = trainer.evaluate()
    assert moved(names)
    assert found["eval_loss"] > 0
    assert not trainer.model_accepts_loss_kwargs  # else accumulated gradients would add up
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, refocus.collate([names["rows"][0]] * 2))
    trainer.log({"loss": float(loss.detach())})
    assert trainer.state.log_history[-1]["classification"] > 0
    with pytest.raises(InputError, match="masks: missing from the batch"):
        trainer.compute_loss(trainer.model, {"pixel_values": torch.zeros(1, 3, 32, 32)})
    args = names["TrainingArguments"]("out", report_to="none")
    with pytest.raises(InputError, match="set remove_unused_columns=False"):
        names["Refocused"](model=trainer.model, args=args)


class _Trainer:
    """What the mixin needs of transformers' `Trainer`."""

    def __init__(self, **_named: Any) -> None: ...

    def train(self) -> str:
        return "trained"

    def compute_loss(self, *_arguments: Any) -> str:
        return "plain"


def test_a_mixin_that_would_not_train_its_objective_is_refused() -> None:
    step = refocus.objective("refocus")
    arguments = type("Arguments", (), {"remove_unused_columns": False})()
    last = (_Trainer, refocus.TrainerMixin)
    with pytest.raises(InputError, match=r"Mine: _Trainer comes before TrainerMixin"):
        type("Mine", last, {"step": staticmethod(step)})
    with pytest.raises(InputError, match=r"Mine: _Trainer comes before TrainerMixin"):
        type("Mine", (type("Kind", (_Trainer,), {}), refocus.TrainerMixin), {})
    first = (refocus.TrainerMixin, _Trainer)
    with pytest.raises(InputError, match=r"Mine: step .* must be staticmethod"):
        type("Mine", first, {"step": step})
    base: Any = type("Base", first, {})
    with pytest.raises(InputError, match=r"Base: has no step; set step = staticmethod"):
        base(args=arguments).train()

    def method(self: Any, model: Any, images: Any, masks: Any, labels: Any) -> Any: ...

    def loss(self: Any, *given: Any) -> Any: ...

    for names in ({"step": staticmethod(step)}, {"step": method}, {"compute_loss": loss}):
        made: Any = type("Mine", (base,), names)
        trainer = made(args=arguments)
        trainer.step = getattr(trainer, "step", step)
        assert trainer.train() == "trained"


def test_rows_follow_the_mask_and_keep_its_type(place: Path) -> None:
    save(build("ViT", "class token"), place / "model")
    model = load("model")
    rows = refocus.masked_images(model, "images", "masks", train=False)
    assert len(rows) == 12
    row = rows[0]
    mask = row["masks"]
    assert isinstance(mask, tv_tensors.Mask)
    assert mask.shape == (1, 32, 32)
    assert row["pixel_values"][:, mask[0] > 0.5].std() < row["pixel_values"][:, mask[0] < 0.5].std()
    for workers in (0, 1):
        batch = next(iter(DataLoader(rows, 4, num_workers=workers, collate_fn=refocus.collate)))
        assert isinstance(batch["masks"], tv_tensors.Mask)
        assert isinstance(batch["masks"].to("cpu", torch.float64), tv_tensors.Mask)
        assert batch["labels"].tolist() == [0, 0, 0, 1]
    terms = refocus.objective("energy")(
        model, batch["pixel_values"], batch["masks"], batch["labels"]
    )
    plain = refocus.objective("energy")(
        model, batch["pixel_values"], batch["masks"].as_subclass(torch.Tensor), batch["labels"]
    )
    assert torch.equal(terms["loss"], plain["loss"])
    assert type(terms["loss"]) is torch.Tensor


def test_rows_without_masks_are_refused(place: Path) -> None:
    save(build("ViT", "class token"), place / "model")
    with pytest.raises(InputError, match="masks: missing; images carries none"):
        refocus.masked_images(load("model"), "images")


def test_rows_leave_out_masks_that_are_not_trusted(place: Path) -> None:
    """As `tune` and `audit` do."""
    save(build("ViT", "class token"), place / "model")
    files = sorted((place / "masks").rglob("*.png"))
    rows = [
        {
            "mask": file.relative_to(place / "masks").as_posix(),
            "digest": digest(file),
            "score": 0.05 if position % 3 == 0 else 0.9,
        }
        for position, file in enumerate(files)
    ]
    (place / "masks" / "masks.json").write_text(json.dumps({"masks": rows}))
    model = load("model")
    assert len(refocus.masked_images(model, "images", "masks")) == len(files) * 2 // 3
    assert len(refocus.masked_images(model, "images", "masks", mask_score=0)) == len(files)
    with pytest.raises(InputError, match="mask_score 2: must be a number between 0 and 1"):
        refocus.masked_images(model, "images", "masks", mask_score=2)
