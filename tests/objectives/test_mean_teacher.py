from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import refocus
from refocus.tuning.course import accelerator_for, recipes_step
from refocus.tuning.loop import Training
from refocus.tuning.selection import choose_samples
from tests.makers import Build, masked_batch
from tests.tuning.makers import quick_recipe


def test_the_mean_moves_by_its_lag_and_the_student_is_left_alone(tiny: Build) -> None:
    student = tiny().train()
    teacher = refocus.MeanTeacher(student, 4)
    start = [w.detach().clone() for w in student.parameters()]
    images, *_ = masked_batch()
    torch.testing.assert_close(teacher(images), student.eval()(images))
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    teacher.follow(student)
    teacher.follow(student)
    pairs = zip(teacher.model.parameters(), start, student.parameters(), strict=True)
    for kept, old, now in pairs:
        torch.testing.assert_close(kept, old + 1 - 0.75**2)  # a quarter of what is left, twice
        torch.testing.assert_close(now, old + 1)
        assert not kept.requires_grad
    assert not teacher(images).requires_grad


def test_buffers_are_those_of_the_student() -> None:
    student = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    teacher = refocus.MeanTeacher(student, 10)
    student(torch.randn(4, 3, 2, 2))  # moves the running statistics
    teacher.follow(student)
    assert torch.equal(teacher.model[0].running_mean, student[0].running_mean)
    assert not teacher.model.training


@pytest.mark.parametrize("lag", [0, 0.5, -1, float("nan")])
def test_a_lag_below_one_step_is_refused(lag: float, tiny: Build) -> None:
    with pytest.raises(refocus.InputError, match=r"^lag: .*1 or more"):
        refocus.MeanTeacher(tiny(), lag)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(refocus.InputError, match=r"^student: .*torch.nn.Module"):
        refocus.MeanTeacher("vit", 2)  # type: ignore[arg-type]


def test_consistency_learns_from_the_teacher_in_place_of_the_original(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    teacher = refocus.MeanTeacher(model, 2)
    with torch.no_grad():
        teacher.model.head.bias[0] += 5
    learned = refocus.objective("consistency", original=teacher.model)
    other = refocus.objective("consistency", original=model)
    terms, without = (step(model, images, masks, labels) for step in (learned, other))
    assert terms["consistency"] > without["consistency"] + 0.1


@pytest.mark.parametrize("changes", [{"lora": 2}, {"last_blocks": 1}, {"recompute": True}], ids=str)
def test_a_run_follows_whatever_part_of_the_model_is_trained(
    changes: dict[str, Any], model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = quick_recipe(
        model_folder, image_folders, objective="consistency", lr=1e-2, epochs=10, **changes
    )
    model = refocus.load(recipe.model)
    first = deepcopy(model)
    accelerator = accelerator_for(recipe)
    shots = choose_samples(recipe, model).train
    training = Training(recipe, 1e-2, model, shots, accelerator)
    assert training.teacher is not None
    assert training.teacher.lag == pytest.approx(0.2 * 10 * len(training.batches))
    training.epoch(
        0, recipes_step(recipe, accelerator.device, None, training.teacher), lambda: None
    )
    images, *_ = masked_batch()
    answers = [plain(images) for plain in (first, training.teacher, training.model.eval())]
    near, far = ((answers[i] - answers[0]).abs().mean() for i in (1, 2))
    assert 0 < near < far
