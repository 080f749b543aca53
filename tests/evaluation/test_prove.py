"""Numbers of two models: reliance on the background, curves, shifts."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from refocus.data import shifts
from refocus.evaluation import prove
from refocus.evaluation.background import background_reliance
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.metrics import paired_difference
from refocus.evaluation.plan import Plan
from refocus.evaluation.stored import read_evaluation
from refocus.records import read_lines
from refocus.results import Compared
from tests.makers import NAMES, Build, answer, run, stimuli


def test_background_reliance_of_two_hand_made_models() -> None:
    images = [f"a/{i}.png" for i in range(80)]
    plain = [answer(i, 0, 0, 0.9) for i in images]
    same = [answer(i, 0, 0, 0.8) for i in images]
    leaning = [answer(i, 0, int(n % 2), 0.3) for n, i in enumerate(images)]  # half of them lost
    steady = [answer(i, 0, 0, 0.7) for i in images]
    found = background_reliance(
        {"model": plain, "against": plain},
        {"model": same, "against": same},
        {"model": steady, "against": leaning},
        0,
    )
    assert found.against is not None
    assert found.change is not None
    assert found.model.bg_gap.value == 0
    assert found.against.bg_gap.value == 50
    assert found.change.bg_gap.difference == -50
    low, high = found.change.bg_gap.interval or (0, 0)
    assert -71 < low < -50 < high < -29  # exact bounds: 20 of 40 images differ
    assert found.against.confidence_change.value == pytest.approx(-0.5)
    assert found.change.confidence_change.difference == pytest.approx(0.4)
    assert found.model.plain.value == 100


def test_the_interval_of_a_curve_resamples_images_not_their_levels() -> None:
    # each image is right at all of 20 levels or at none: 30 independent facts, not 600
    lines = [answer(f"a/{i}.png", 0, int(i % 2)) for i in range(30)]
    result = prove.SuiteResult(lines, {})
    curve = prove.curve({str(k): {"model": result} for k in range(20)}, 0)
    found, levels = curve.mean, curve.levels
    assert found.model.value == 50
    assert found.model.n == 30
    low, high = found.model.interval or (0, 0)
    assert high - low > 30
    assert [level.top1.model.value for level in levels] == [50] * 20


def test_a_curve_holds_the_answers_of_one_level_at_a_time() -> None:
    alive: set[int] = set()

    class Levels(Mapping[str, prove.Answers]):
        def __iter__(self) -> Iterator[str]:
            return iter(map(str, range(9)))

        def __len__(self) -> int:
            return 9

        def __getitem__(self, level: str) -> prove.Answers:
            lines = [answer(f"a/{i}.png", i % 3, int(level) % 2) for i in range(30)]
            found, number = prove.SuiteResult(lines, {}), int(level)
            alive.add(number)
            weakref.finalize(found, alive.discard, number)
            assert len(alive) <= 2  # this one, and the one before until it is let go
            return {"model": found}

    curve = prove.curve(Levels(), 0)
    assert curve.mean.model.value == pytest.approx(100 / 3)
    assert curve.chance == pytest.approx(100 / 3)


def test_evaluate_with_masks_shifts_groups_and_cues(
    monkeypatch: pytest.MonkeyPatch,
    two_model_folders: tuple[Path, Path],
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "image,group\n"
        + "".join(
            f"{n}/{i}.png,{'even' if i % 2 == 0 else 'odd'}\n" for n in NAMES for i in range(6)
        )
    )
    names = ["cat1-dog1", "dog2-cat1", "cat2-cat3", "dog3-ant1", "photo"]
    cues = stimuli(tmp_path / "cues", names)
    mapping = tmp_path / "mapping.json"
    mapping.write_text(json.dumps({"cat": ["cat"], "dog": ["dog", "ant"]}))
    out = tmp_path / "ev"
    arguments = [
        "evaluate",
        "--model",
        two_model_folders[0],
        "--against",
        two_model_folders[1],
        "--on",
        f"mine={images}",
        f"cue-conflict={cues}",
        "--masks",
        f"mine={masks}",
        "--shift",
        "mixed-same,mixed-rand,size",
        "--groups",
        f"mine={groups}",
        "--mapping",
        mapping,
        "--faithfulness",
        4,
        "--out",
        out,
    ]
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    for text in (
        "mine: mixed-rand",
        "mine: size (mean)",
        "BG-gap",
        "shape bias",
        "pointing game",
        "insertion",
        "1 unreadable images skipped",
    ):
        assert text in shown
    suites = read_evaluation(out / "results.json").suites
    entry = suites["mine"]
    assert entry.n == 24
    assert list(entry.protocols) == ["standard"]
    swapped = entry.shifts["mixed-rand"].answers
    assert swapped is not None
    for part in (entry.first, swapped):
        assert consistent(part.top5)
    for number in (entry.first.top1, *(shift.top1 for shift in entry.shifts.values())):
        assert consistent(number)
    groups_ = entry.first.groups
    assert {row.name for row in groups_} == {"even", "odd"}
    assert groups_[0].top1.value <= groups_[1].top1.value
    assert [level.level for level in entry.shifts["size"].levels] == [
        name for name, _ in shifts.KINDS["size"].levels
    ]
    bias = suites["cue-conflict"].cues
    assert bias is not None
    assert (suites["cue-conflict"].n, bias.model.dropped_same, bias.model.dropped_unmapped) == (
        (2, 1, 1)
    )
    assert [Path(image).stem for image in bias.unreadable] == ["photo"]
    same, rand = (
        read_predictions(out / "records" / "mine" / f"{name}.model.jsonl")
        for name in ("mixed-same", "mixed-rand")
    )
    gap = paired_difference(same, rand).top1.difference
    assert entry.background is not None
    assert entry.background.model.bg_gap.value == gap


def consistent(number: Compared) -> bool:
    """The change is that of the two numbers, and every number lies in its interval."""
    assert number.against is not None
    assert number.change is not None
    assert number.change.difference == pytest.approx(number.model.value - number.against.value)
    for value, interval in (
        (number.model.value, number.model.interval),
        (number.change.difference, number.change.interval),
    ):
        assert interval is not None
        assert interval[0] <= value <= interval[1]
    return True


def test_a_shift_on_the_fly_gives_the_answers_of_the_written_folder(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    images, masks = image_folders
    assert (
        run(
            monkeypatch,
            "shifts",
            images,
            "--masks",
            masks,
            "--kind",
            "mixed-rand",
            "--out",
            tmp_path / "s",
            "--seed",
            5,
        )
        == 0
    )
    on_the_fly = [
        "--on",
        f"a={images}",
        "--masks",
        f"a={masks}",
        "--shift",
        "mixed-rand",
        "--seed",
        5,
    ]
    assert (
        run(monkeypatch, "evaluate", "--model", model_folder, *on_the_fly, "--out", tmp_path / "e1")
        == 0
    )
    written = tmp_path / "s" / "mixed-rand"
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--model",
            model_folder,
            "--on",
            f"a={written}",
            "--out",
            tmp_path / "e2",
        )
        == 0
    )
    first = list(read_lines(tmp_path / "e1" / "records" / "a" / "mixed-rand.model.jsonl"))
    assert first == list(read_lines(tmp_path / "e2" / "records" / "a" / "standard.model.jsonl"))


def test_two_orders_of_classes_see_the_same_shifted_images(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    first = tiny()
    second = tiny()
    second.load_state_dict(first.state_dict())
    second.head.weight.data = first.head.weight.data.flip(0)
    second.head.bias.data = first.head.bias.data.flip(0)
    second.pretrained_cfg["label_names"] = NAMES[::-1]
    plan = Plan({"a": images}, {"a": masks}, ("mixed-rand", "mixed-next"), most=9, quiet=True)
    entry = prove.prove({"model": first, "against": second}, plan, tmp_path)["a"]
    for number in (entry.first.top1, *(shift.top1 for shift in entry.shifts.values())):
        assert number.change is not None
        assert number.change.corrected == number.change.broken == 0
