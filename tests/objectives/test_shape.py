"""Shape distillation: a token learns a teacher's answers on stylized images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import refocus
from refocus.data.styles import by_amplitudes
from refocus.errors import InputError
from refocus.objectives.by_name import step_of
from refocus.objectives.steps import Lesson, StepSettings
from refocus.relevance.answers import second_answer
from refocus.tuning.course import lone
from refocus.vit import loading
from refocus.vit.loading import preprocessing
from tests.makers import Build, make_images, masked_batch
from tests.zoo import build

ALONE = {"classification": 0.0, "shape": 1.0}


def test_the_term_is_the_divergence_on_the_stylized_images(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    seen: list[Tensor] = []
    fixed = torch.randn(len(images), 4)

    def teacher(pixels: Tensor) -> Tensor:
        seen.append(pixels)
        return fixed

    step = step_of("finetune", StepSettings(lesson=Lesson(teacher)), ALONE)
    terms = step(model, images, masks, labels)
    config = preprocessing(model)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = (images * std + mean).clamp(0, 1)
    expected = by_amplitudes(pixels, torch.cat([pixels[1:], pixels[:1]]), 1.0)
    torch.testing.assert_close(seen[0], expected)
    student = model((expected - mean) / std).log_softmax(1)
    shares = fixed.softmax(1)
    divergence = (shares * (shares.log() - student)).sum(1).mean()
    torch.testing.assert_close(terms["shape"], divergence)
    torch.testing.assert_close(terms["loss"], divergence)


def test_one_image_alone_has_no_other_style_and_teaches_nothing(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    step = step_of(
        "finetune", StepSettings(lesson=Lesson(lambda _: pytest.fail("was asked"))), ALONE
    )
    terms = step(model, images[:1], masks[:1], labels[:1])
    assert float(terms["shape"].detach()) == 0
    terms["loss"].backward()


@pytest.mark.parametrize(
    ("changes", "images", "processes", "said"),
    [
        ({"batch_size": 1}, 8, 1, "sees one image of 8, ‹batch_size› 1 over 1 process: .* backgr"),
        ({"batch_size": 2, "objective": "swap"}, 8, 2, "over 2 processes: .* give at least 4"),
        ({"objective": "consistency"}, 1, 1, "one image of 1"),
        (
            {"batch_size": 1, "objective": "finetune", "weights": {"shape": 1.0}},
            8,
            1,
            "whose styles it could take",
        ),
        ({"batch_size": 1, "objective": "finetune"}, 8, 1, "^$"),
        ({"batch_size": 2}, 8, 1, "^$"),
    ],
)
def test_steps_of_one_image_are_said(
    changes: dict[str, Any], images: int, processes: int, said: str
) -> None:
    recipe = refocus.Recipe("m", "i", "k", **changes)
    assert re.search(said, lone(recipe, images, processes))


def _lowered(model: Any, lesson: Lesson, steps: int = 15) -> tuple[float, float]:
    images, masks, labels = masked_batch()
    step = step_of("finetune", StepSettings(lesson=lesson), ALONE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    found = []
    for _ in range(steps):
        loss = step(model, images, masks, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found[0], found[-1]


def test_the_class_token_comes_nearer_to_the_teacher(tiny: Build) -> None:
    fixed = torch.randn(8, 4)
    first, last = _lowered(tiny(), Lesson(lambda pixels: fixed[: len(pixels)]))
    assert last < 0.7 * first


def test_a_second_token_learns_and_the_head_of_the_class_token_does_not() -> None:
    model: Any = build("distilled DeiT", "")
    images, masks, labels = masked_batch()
    fixed = torch.randn(len(images), 4)
    lesson = Lesson(lambda _pixels: fixed, "second")
    terms = step_of("finetune", StepSettings(lesson=lesson), ALONE)(model, images, masks, labels)
    terms["loss"].backward()
    assert float(model.head_dist.weight.grad.abs().sum()) > 0
    assert model.head.weight.grad is None or float(model.head.weight.grad.abs().sum()) == 0
    first, last = _lowered(model, lesson)
    assert last < first
    assert second_answer(model, images).shape == fixed.shape


def test_a_teacher_without_a_term_and_the_reverse_are_refused(tiny: Build) -> None:
    with pytest.raises(InputError, match="needs teacher"):
        refocus.objective("finetune", shape=1.0)
    with pytest.raises(InputError, match="no term uses it"):
        step_of("finetune", StepSettings(lesson=Lesson(lambda pixels: pixels)), {})


@pytest.mark.slow
def test_tune_with_a_teacher(tiny: Build, tmp_path: Path) -> None:
    images, masks = make_images(tmp_path / "data")
    model, teacher = tiny(), tiny()
    loading.save(model, tmp_path / "m")
    loading.save(teacher, tmp_path / "t")
    given: dict[str, Any] = {
        "objective": "finetune", "classes": 2, "shots": 2, "epochs": 1, "flip": 0.0,
        "device": "cpu", "do_no_harm": False, "teacher": str(tmp_path / "t"),
    }  # fmt: skip
    recipe = refocus.Recipe(
        str(tmp_path / "m"), str(images), str(masks), weights={"shape": 2.0}, **given
    )
    refocus.tune(recipe, tmp_path / "run", progress=False)
    line = (tmp_path / "run" / "history.jsonl").read_text()
    assert "shape" in line
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    for more, message in (
        ({"weights": {}}, "no term uses it"),
        ({"teacher_token": "second"}, "the model has no second token .* must be class"),
        ({"adain": str(tmp_path)}, "vgg.safetensors is missing"),
        ({"teacher": None}, "needs teacher"),
    ):
        bad = refocus.Recipe(
            str(tmp_path / "m"), str(images), str(masks),
            **{"weights": {"shape": 2.0}, **given, **more},
        )  # fmt: skip
        with pytest.raises(InputError, match=message):
            refocus.tune(bad, tmp_path / "bad", progress=False)
    assert not (tmp_path / "bad").exists()
    with pytest.raises(InputError, match="teacher_token: only with teacher"):
        refocus.Recipe("m", "i", "k", teacher_token="second")
