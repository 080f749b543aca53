"""Evaluation: one record per image, nothing lost, nothing silent."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import refocus
from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.evaluation import classify, suites
from refocus.vit.precision import computing
from tests.makers import Build


def test_predictions_are_those_of_the_plain_model(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, _ = image_folders
    model = tiny().train()  # must be read in eval mode and left in train mode
    result = refocus.evaluate(model, images, batch_size=5)
    assert model.training
    model.eval()
    assert len(result.predictions) == 24
    for p in result.predictions:
        with torch.inference_mode():
            logits = model(eval_image(model)(read_image(images / p.image))[None])[0]
        assert p.top5[0] == int(logits.argmax())
        assert p.confidence == pytest.approx(float(logits.softmax(0).max()), abs=1e-5)
        assert p.image.split("/")[0] == ["ant", "bee", "cat", "dog"][p.label]


def test_an_evaluation_leaves_each_module_and_the_random_numbers_as_they_were(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    model = tiny().train()
    model.norm.eval()  # as one that is not to be trained on
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    refocus.evaluate(model, image_folders[0])
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_may_evaluate_one_model_that_is_in_train_mode(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    model = tiny(drop_rate=0.5)
    expected = refocus.evaluate(model, image_folders[0], batch_size=2)
    model.train()
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: refocus.evaluate(model, image_folders[0], batch_size=2), range(8))
        )
    assert all(one == expected for one in found)
    assert model.training


def test_unreadable_images_are_counted_named_and_skipped(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = image_folders
    (images / "cat" / "3.png").write_text("no image")
    result = refocus.evaluate(tiny(), images, records=tmp_path / "r.jsonl")
    assert list(result.unreadable) == ["cat/3.png"]
    assert "cat/3.png" in caplog.text
    entry = classify.summary(tiny(), result)
    assert entry.n == 23
    assert entry.model.per_class["cat"].n == 5
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 24


def test_no_readable_image_is_an_error(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    images, _ = image_folders
    for path in images.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(refocus.InputError, match="none of its 24 images"):
        refocus.evaluate(tiny(), images)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_images_take_the_number_format_of_the_weights(
    tiny: Build, image_folders: tuple[Path, Path], kind: torch.dtype
) -> None:
    images, _ = image_folders
    model = tiny()
    wanted = refocus.evaluate(model, images).predictions
    found = refocus.evaluate(model.to(kind), images).predictions
    for one, other in zip(found, wanted, strict=True):
        assert one.true_confidence == pytest.approx(other.true_confidence, abs=0.02)


def test_answers_that_are_no_numbers_are_refused(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, _ = image_folders
    model: Any = tiny()
    model.head.bias.data[0] = -torch.inf  # one class left out, which says something
    assert all(p.top5[-1] == 0 for p in refocus.evaluate(model, images).predictions)
    for wrong in (torch.nan, torch.inf):
        model.head.bias.data[0] = wrong
        with pytest.raises(refocus.InputError, match="model: its answers are no numbers"):
            refocus.evaluate(model, images, records=tmp_path / "r.jsonl")


@pytest.mark.parametrize("kind", ["table", "splits", "named split"])
def test_test_images_come_from_any_source(
    tiny: Build,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("REFOCUS_CACHE", str(tmp_path / "cache"))
    images, _ = image_folders
    lines = [f"{file},{file.parent.name}" for file in sorted(images.glob("*/*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    for part, count in (("train", 1), ("test", 6), ("val", 2)):
        for file in images.glob("*/*.png"):
            if int(file.stem) < count:
                copy = tmp_path / "parts" / part / file.parent.name / file.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.symlink_to(file)
    given, count = {
        "table": ("t.csv", 24),
        "splits": ("parts", 24),
        "named split": ("parts?split=val", 8),
    }[kind]
    assert len(refocus.evaluate(tiny(), f"{tmp_path}/{given}").predictions) == count


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = image_folders
    model, records = tiny(), tmp_path / "r.jsonl"
    whole = refocus.evaluate(model, images, records=records, batch_size=10)
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:10]) + lines[10][:20])  # as a crash leaves it
    seen = []
    genuine = suites.read_image
    monkeypatch.setattr(suites, "read_image", lambda path: seen.append(path) or genuine(path))
    again = refocus.evaluate(model, images, records=records, batch_size=10)
    assert len(seen) == 14
    assert again == whole
    assert [json.loads(x)["image"] for x in records.read_text().splitlines()] == [
        json.loads(x)["image"] for x in lines
    ]


def test_summary_against_another_model_is_paired(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, _ = image_folders
    first, second = tiny(), tiny()
    a, b = refocus.evaluate(first, images), refocus.evaluate(second, images)
    entry = classify.summary(first, a, (second, b))
    top1 = entry.top1
    assert top1.change.difference == pytest.approx(top1.model.value - top1.against.value)
    assert top1.change.n == 24
    low, high = top1.change.interval
    assert low <= top1.change.difference <= high


def test_the_other_model_may_order_its_classes_otherwise(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    first, second = tiny(), tiny()
    second.pretrained_cfg["label_names"] = ["dog", "cat", "bee", "ant"]
    with torch.no_grad():
        second.head.weight.zero_()
        second.head.bias.copy_(torch.tensor([1.0, 0, 0, 0]))  # always says dog
    results = [refocus.evaluate(model, image_folders[0]) for model in (first, second)]
    entry = classify.summary(first, results[0], (second, results[1]))
    assert entry.against.per_class["dog"].top1 == 100
    assert entry.against.per_class["ant"].top1 == 0


def test_records_of_another_model_folder_or_preprocessing_are_refused(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    model, records = tiny(), tmp_path / "new" / "r.jsonl"
    first = refocus.evaluate(model, images, records=records)
    assert refocus.evaluate(model, images, records=records) == first
    before = records.read_bytes()
    cropped = tiny()
    cropped.load_state_dict(model.state_dict())
    cropped.pretrained_cfg["crop_pct"] = 0.5
    paper = suites.open_suite("", images, model, protocol="paper")
    for other, tests, said in (
        (tiny(), images, "weights"),
        (cropped, images, "preprocessing"),
        (model, paper, "protocol"),
        (model, replace(paper, transform=eval_image(model), among=(0, 1)), "protocol"),
        (model, masks, "folder"),
    ):
        with pytest.raises(refocus.InputError, match=rf"r.jsonl: holds other answers \({said}"):
            refocus.evaluate(other, tests, records=records)
    with computing("bf16"), pytest.raises(refocus.InputError, match=r"fp32. then, .bf16"):
        refocus.evaluate(model, images, records=records)
    assert records.read_bytes() == before
    (images / "ant" / "0.png").write_bytes((images / "bee" / "0.png").read_bytes())
    with pytest.raises(refocus.InputError, match=r"files: one content then, another now"):
        refocus.evaluate(model, images, records=records)
    records.with_name("r.jsonl.settings.json").unlink()
    with pytest.raises(refocus.InputError, match=r"settings.json is missing"):
        refocus.evaluate(model, images, records=records)
