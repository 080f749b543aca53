from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evidence import directions, methods, teachers, views
from evidence.directions import DIRECTIONS, Direction
from evidence.methods import METHODS, TRIED, trying
from evidence.sources import prepare
from evidence.teachers import Asked, Course
from evidence.work import Outcome, Work
from refocus import InputError, load, objective
from refocus.objectives.registry import OBJECTIVES
from tests.evidence.makers import planted
from tests.makers import Build, masked_batch

Batch = tuple[Tensor, Tensor, Tensor]
UNCHANGED = Direction("unchanged")
OF_WEIGHTS = {name for name, d in DIRECTIONS.items() if d.mean or d.depth or d.attention}
OF_RUNS = OF_WEIGHTS | {"rounds2", "lora"}  # their first step is that of `consistency`


@pytest.fixture
def batch() -> Batch:
    images, masks, labels = masked_batch(8)
    masks[::2] = masks[::2].roll((8, 3), (2, 3))  # else each hides its donor's, in whole patches
    return images, masks, labels


def loss(model: nn.Module, batch: Batch, direction: Direction, course: Course) -> float:
    teacher = _moved(model)  # else the two agree on the images as they are
    with trying(direction, course):
        step = objective(TRIED, original=teacher)
        return float(step(model, *batch)["loss"].item())


def _moved(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model).requires_grad_(False)
    torch.manual_seed(1)
    for weight in other.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    return other


def test_the_unchanged_step_is_that_of_the_product(tiny: Build, batch: Batch) -> None:
    model = tiny()
    of_product = objective("consistency", original=_moved(model))(model, *batch)["loss"].item()
    assert loss(model, batch, UNCHANGED, Course(4)) == pytest.approx(of_product)


@pytest.mark.parametrize("name", sorted(DIRECTIONS.keys() - OF_RUNS))
def test_a_direction_changes_the_step(name: str, tiny: Build, batch: Batch) -> None:
    model = tiny().train()
    torch.manual_seed(0)
    changed = loss(model, batch, DIRECTIONS[name], Course(4))
    plain = loss(model, batch, UNCHANGED, Course(4))
    assert changed != pytest.approx(plain, rel=1e-5)
    assert TRIED not in OBJECTIVES


@pytest.fixture
def work(model_folder: Path, tmp_path: Path) -> Work:
    source = prepare("planted", planted(tmp_path / "planted"), None, tmp_path)
    return Work(model_folder, source, 2, False, 0, 4, 1e-3, "fp32", tmp_path / "run")


@pytest.mark.parametrize("name", sorted(OF_RUNS))
def test_a_direction_leaves_other_weights(name: str, work: Work) -> None:
    plain = METHODS["consistency"].run(work)
    other = METHODS[f"consistency-{name}"].run(replace(work, folder=work.folder.with_name("other")))
    assert other.used == plain.used
    assert other.steps == plain.steps == 4
    assert other.weights.keys() == plain.weights.keys()
    changed = {k for k, v in plain.weights.items() if not torch.equal(v, other.weights[k])}
    assert changed
    start = load(work.model).state_dict()
    moved = {k for k, v in other.weights.items() if not torch.equal(v, start[k])}
    if name == "attention":
        assert moved
        assert all(".qkv." in k for k in moved)
        width = len(start["blocks.0.attn.qkv.weight"]) // 3
        values = [w["blocks.0.attn.qkv.weight"][2 * width :] for w in (start, other.weights)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-6)  # the weight decay alone
    if name == "depth":
        assert not any(k.startswith(("patch_embed", "pos_embed", "cls_token")) for k in moved)
        last = f"blocks.{len(load(work.model).blocks) - 1}."  # type: ignore[arg-type]
        for kept in (k for k in moved if k.startswith(("head", "norm", last))):
            torch.testing.assert_close(other.weights[kept], plain.weights[kept])


def test_the_second_round_begins_with_the_weights_that_the_first_ended_with(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    tuned = methods.tuned

    def kept(one: Work, *given: Any) -> Outcome:
        made = tuned(one, *given)
        rounds.append((load(one.model).state_dict(), made.weights))
        return made

    monkeypatch.setattr(methods, "tuned", kept)
    METHODS["consistency-rounds2"].run(work)
    (_, first), (second, _) = rounds
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("images", "steps", "lag"), [(2, 50, 10), (0, 50, 10.2), (2, 1, 1)])
def test_a_follower_is_the_mean_of_a_fifth_of_the_steps_taken(
    images: int, steps: int, lag: float, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    monkeypatch.setattr(teachers, "follow", lambda *given: taken.append(given[2]))
    one = replace(work, images=images, steps=steps)  # 8 images or 24, three steps an epoch
    METHODS["consistency-follower"].run(one)
    assert taken
    assert taken == pytest.approx([lag] * len(taken))


def test_an_interrupted_direction_begins_again(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = METHODS["consistency-follower"].run(work)
    follow, calls = teachers.follow, iter(range(3))

    def stop(*given: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        follow(*given)

    other = replace(work, folder=work.folder.with_name("other"))
    with monkeypatch.context() as patched:
        patched.setattr(teachers, "follow", stop)
        with pytest.raises(KeyboardInterrupt):
            METHODS["consistency-follower"].run(other)
    again = METHODS["consistency-follower"].run(other)
    assert all(torch.equal(v, again.weights[k]) for k, v in whole.weights.items())


def test_weights_by_depth_are_a_line_from_first_to_last() -> None:
    names = ("patch_embed.w", *(f"blocks.{i}.w" for i in range(4)), "head.w")
    start = {name: torch.zeros(2) for name in names}
    end = {name: torch.ones(2) for name in names}
    found = [float(v[0]) for v in directions.by_depth(start, end).values()]
    assert found == [0, 0.25, 0.5, 0.75, 1, 1]


def asked(model: nn.Module, batch: Batch, **changes: object) -> Asked:
    images, masks, labels = batch
    every, _ = views.swaps(images, masks)
    given = {"original": _moved(model), "student": model, "course": Course(4)} | changes
    return Asked(every=every, images=images, labels=labels, **given)  # type: ignore[arg-type]


def test_teachers_answer_with_probabilities(tiny: Build, batch: Batch) -> None:
    every: dict[str, Callable[[Asked], Tensor]] = {
        "original": teachers.original,
        "cold": partial(teachers.original, temperature=0.5),
        "corrected": teachers.corrected,
        "averaged": teachers.averaged,
        "follower": teachers.follower,
    }
    given = asked(tiny(), batch)
    with torch.no_grad():
        found = {name: teach(given) for name, teach in every.items()}
    for answers in found.values():
        torch.testing.assert_close(answers.exp().sum(1), torch.ones(8))
    assert torch.equal(found["corrected"].argmax(1), batch[2])
    assert (found["cold"].exp().max(1)[0] > found["original"].exp().max(1)[0]).all()
    torch.testing.assert_close(
        found["corrected"].sort(1)[0], found["original"].sort(1)[0]
    )  # exchanged, not made


def test_a_teacher_takes_a_tenth_of_the_student_in_each_step(tiny: Build, batch: Batch) -> None:
    model, course = tiny().train(), Course(4)
    first = _moved(model)
    with torch.no_grad():
        teachers.follower(asked(model, batch, course=course, original=first), 10)
        model.eval()  # validation does not move it
        teachers.follower(asked(model, batch, course=course, original=first), 10)
    assert course.teacher is not None
    for kept, old, now in zip(
        course.teacher.parameters(), first.parameters(), model.parameters(), strict=True
    ):
        torch.testing.assert_close(kept, 0.9 * old + 0.1 * now.detach())


def test_views_keep_the_images_first_and_their_masks(batch: Batch) -> None:
    images, masks, _ = batch
    kinds = {
        "swaps": views.swaps,
        "blended": views.blended,
        "shifts": views.other_shifts,
        "moved": views.moved,
        "gradual": partial(views.gradual, course=Course(4)),
        "all": views.every_swap,
    }
    for name, see in kinds.items():
        every, where = see(images, masks)
        assert len(every) == len(where) == (64 if name == "all" else 32)
        assert torch.equal(every[:8], images)
        assert torch.equal(where[:8], masks)
        inside = where.expand_as(every) == 1
        if name != "moved":  # the object itself is the same in all
            assert torch.equal(every[inside], images.repeat(len(every) // 8, 1, 1, 1)[inside])
        one, alone = see(images[:1], masks[:1])
        assert len(one) == len(alone) == 1


def test_gradual_swaps_end_as_swaps(batch: Batch) -> None:
    images, masks, _ = batch
    whole, _ = views.swaps(images, masks)
    first, _ = views.gradual(images, masks, course=Course(4, taken=0))
    half, _ = views.gradual(images, masks, course=Course(4, taken=1))
    torch.testing.assert_close(half, whole)
    torch.testing.assert_close(first[8:], (images.repeat(3, 1, 1, 1) + whole[8:]) / 2)


def test_knowing_nothing_is_zero() -> None:
    assert float(directions._knowledge(torch.zeros(3, 5))) == pytest.approx(0, abs=1e-6)
    sure = torch.tensor([[100.0, 0, 0, 0]])
    assert float(directions._knowledge(sure)) == pytest.approx(float(torch.tensor(4.0).log()))


def test_whole_patches_exchanged_at_the_embedding_are_those_of_pixels(tiny: Build) -> None:
    model = tiny()
    images, masks, labels = masked_batch(4)
    size = images.shape[-1] // 2
    masks[:] = 0
    masks[..., :size, :size] = 1  # whole patches, and the margin filled in both ways
    found = {}
    for name in ("patches", "unchanged"):
        found[name] = loss(
            model, (images, masks, labels), DIRECTIONS.get(name, UNCHANGED), Course(1)
        )
    assert found["patches"] == pytest.approx(found["unchanged"], rel=1e-4)


def test_a_name_of_the_table_is_not_taken_again() -> None:
    with (
        pytest.raises(InputError, match="'swap' is taken"),
        OBJECTIVES.having({"swap": OBJECTIVES["swap"]}),
    ):
        pass


def test_a_moved_object_lies_in_its_mask() -> None:
    masks = torch.zeros(8, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    every, where = views.moved(masks.repeat(1, 3, 1, 1), masks)  # white objects on black
    for edge in (0.0, 1.0):  # a soft edge is between
        there = every[:, :1][where == edge]
        torch.testing.assert_close(there, torch.full_like(there, edge))
    assert not torch.equal(where[:8], where[8:16])


def test_the_mean_of_the_weights_is_of_training_alone(tiny: Build) -> None:
    course, model = Course(4), tiny().eval()
    step = directions.averaging(lambda *given: ({}, None), course)
    step(model)
    assert not course.mean
    step(model.train())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    before = {name: value.clone() for name, value in course.mean.items()}
    step(model)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(course.mean[name], 0.95 * before[name] + 0.05 * weight.detach())
