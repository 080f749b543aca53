"""All shifts of an image at once: the records of one shift after the other, and less work."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from refocus.data import shifts
from refocus.data.transforms import eval_image
from refocus.evaluation import abreast
from refocus.evaluation.abreast import Stage, answer_stages
from refocus.evaluation.classify import evaluate
from refocus.evaluation.suites import TestSet, open_suite
from refocus.records import read_lines
from refocus.vit.loading import Models, load_models

KINDS = ("only-fg", "mixed-rand", "moved", "rotation")


@pytest.fixture
def measured(
    two_model_folders: tuple[Path, Path], image_folders: tuple[Path, Path]
) -> tuple[Models, dict[str, TestSet], list[Stage]]:
    models = load_models(*map(str, two_model_folders), "cpu")
    tests = {
        which: open_suite("", image_folders[0], model, masks=image_folders[1])
        for which, model in models.items()
    }
    stages = [
        Stage(f"{kind}-{shift.level}", shift, dict.fromkeys(models, some[:6]))
        for kind in KINDS
        for shift, some in shifts.shifts(tests["model"].samples, kind, 0)
    ]
    return models, tests, stages


@pytest.mark.parametrize("alike", [True, False])
def test_records_are_those_of_one_shift_after_the_other(
    measured: tuple[Models, dict[str, TestSet], list[Stage]], tmp_path: Path, *, alike: bool
) -> None:
    models, tests, stages = measured
    stages = stages[:4]
    if not alike:  # models that see an image in two ways
        other = models["against"]
        other.pretrained_cfg = {**other.pretrained_cfg, "mean": (0.2, 0.3, 0.4)}
        tests["against"] = replace(tests["against"], transform=eval_image(other))
    found = answer_stages(models, tests, stages, tmp_path, batch_size=5)
    for stage in stages:
        for which, model in models.items():
            alone = evaluate(
                model, replace(tests[which], samples=stage.samples[which], read=stage.shift)
            )
            for ours, theirs in zip(
                found[stage.name][which].predictions, alone.predictions, strict=True
            ):
                assert ours == replace(
                    theirs,
                    confidence=pytest.approx(theirs.confidence, abs=2e-6),
                    true_confidence=pytest.approx(theirs.true_confidence, abs=2e-6),
                )
            lines = read_lines(tmp_path / f"{stage.name}.{which}.jsonl")
            assert len(lines) == len(stage.samples[which])


def test_an_image_is_read_once_and_what_is_recorded_is_not_made_again(
    measured: tuple[Models, dict[str, TestSet], list[Stage]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models, tests, stages = measured
    read: Counter[Path] = Counter()
    genuine = shifts.read_image
    monkeypatch.setattr(shifts, "read_image", lambda path: read.update([path]) or genuine(path))
    first = answer_stages(models, tests, stages, tmp_path)
    images = len(stages[0].samples["model"])
    assert sum(read.values()) == 2 * images  # each and its donor, for eleven stages and two models
    file = tmp_path / f"{stages[0].name}.model.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:20])  # as a crash leaves it
    read.clear()
    again = answer_stages(models, tests, stages, tmp_path)
    assert sum(read.values()) == 2  # the image, alone in the last batch, and its donor
    assert file.read_text() == "".join(lines)
    assert again == first


def test_the_bar_counts_the_images_of_all_shifts(
    measured: tuple[Models, dict[str, TestSet], list[Stage]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models, tests, stages = measured
    few = {which: some[:2] for which, some in stages[1].samples.items()}
    stages = [replace(stages[1], samples=few), stages[0]]  # as where images lack a donor
    told: list[tuple[int, int]] = []
    genuine = abreast.phase

    def phase(label: str, total: int, *, done: int, shown: bool) -> object:
        told.append((total, done))
        return genuine(label, total, done=done, shown=shown)

    monkeypatch.setattr(abreast, "phase", phase)
    answer_stages(models, tests, stages, tmp_path)
    assert told == [(6, 0)]


def test_a_donor_that_cannot_be_read_costs_only_what_it_lends(
    measured: tuple[Models, dict[str, TestSet], list[Stage]], tmp_path: Path
) -> None:
    models, tests, stages = measured
    sample = stages[0].samples["model"][0]
    donor = stages[1].shift.partners[sample.image].image
    Image.new("RGB", (3, 3)).save(donor, format="PNG")  # its mask has another size
    found = answer_stages(models, tests, stages, tmp_path)
    assert found["only-fg-"]["model"].unreadable.keys() <= {f"{donor.parent.name}/{donor.name}"}
    name = f"{sample.image.parent.name}/{sample.image.name}"
    assert all(name in found["mixed-rand-"][which].unreadable for which in models)


def test_answers_are_read_from_the_records_when_they_are_asked_for(
    measured: tuple[Models, dict[str, TestSet], list[Stage]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answers of 47 shifts, two models and thousands of images would take gigabytes."""
    models, tests, stages = measured
    found = answer_stages(models, tests, stages[:3], tmp_path)
    read: list[str] = []
    genuine = abreast.each_line
    monkeypatch.setattr(abreast, "each_line", lambda file: read.append(file.name) or genuine(file))
    assert list(found) == [stage.name for stage in stages[:3]]
    assert read == []
    images = [p.image for p in found[stages[1].name]["against"].predictions]
    assert read == [f"{stages[1].name}.{which}.jsonl" for which in ("model", "against")]
    samples = stages[1].samples["against"]
    assert images == [f"{s.image.parent.name}/{s.image.name}" for s in samples]
