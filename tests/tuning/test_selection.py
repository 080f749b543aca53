"""Which images are trained on, validated on and checked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import refocus
from refocus import InputError, Recipe, fingerprints, progress
from refocus.evaluation.plan import Plan
from refocus.files import write_json
from refocus.tuning import selection


@pytest.mark.parametrize("shown", [False, True])
def test_without_progress_nothing_is_said_while_images_are_chosen(
    recipe: Recipe,
    shown: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "_due", lambda: True)
    (tmp_path / "run").write_text("mine, so that nothing is begun")
    with pytest.raises(InputError, match="already exists"):
        refocus.tune(recipe, tmp_path / "run", progress=shown)
    assert ("reading images and masks" in capsys.readouterr().err) == shown


def test_no_validation_or_check_image_was_trained_on(recipe: Recipe) -> None:
    chosen = selection.choose_samples(recipe, refocus.load(recipe.model))
    assert [s.label for s in chosen.train] == [0] * 4 + [1] * 4
    assert {s.label for s in chosen.select} == {2, 3}
    assert {s.label for s in chosen.check} == {0, 1, 2, 3}
    parts = [{s.image for s in part} for part in (chosen.train, chosen.select, chosen.check)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 24  # no image is in two of them
    assert [len(part) for part in parts] == [8, 4, 12]  # a quarter of what is left chooses
    kept = selection.as_json(chosen)
    assert selection.from_json(kept) == chosen  # selection.json says which is which
    assert {name: len(rows) for name, rows in kept.items()} == {
        "train": 8,
        "select": 4,
        "check": 12,
    }
    other = selection.choose_samples(replace(recipe, seed=1), refocus.load(recipe.model))
    assert {s.image for s in other.select} != parts[1]  # the split follows from the seed
    assert (
        len(
            selection.choose_samples(
                replace(recipe, check_images=6), refocus.load(recipe.model)
            ).check
        )
        == 6
    )


def test_a_second_round_is_not_judged_on_images_of_the_first(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = refocus.load(recipe.model)
    first = selection.choose_samples(recipe, model)
    run = tmp_path / "run"
    refocus.save(model, run / "model")
    write_json(run / "selection.json", selection.as_json(first))
    caplog.set_level("WARNING", "refocus")
    again = replace(recipe, model=str(run / "model"), seed=1, class_seed=1)
    second = selection.choose_samples(again, refocus.load(again.model))
    trained = {s.image for s in first.train}
    assert not trained & {s.image for s in (*second.select, *second.check)}
    left = len(trained - {s.image for s in second.train})
    assert left
    assert f"tuned on these images or on copies of them: {left} of " in caplog.text
    for sample in first.train:  # a folder to validate on that holds nothing else
        assert sample.mask is not None
        for kind, file in (("val", sample.image), ("val_masks", sample.mask)):
            place = tmp_path / kind / file.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    few = replace(again, val=str(tmp_path / "val"), val_masks=str(tmp_path / "val_masks"))
    with pytest.raises(InputError, match=r"val.*: tuning used all of its"):
        selection.choose_samples(few, model=refocus.load(few.model))


def test_a_run_that_cannot_be_checked_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    from tests.makers import make_images

    images, masks = make_images(tmp_path / "val", count=1, seed=1)
    for folder in (images, masks):
        for name in ("ant", "bee", "cat"):
            shutil.rmtree(folder / name)
    one = replace(recipe, val=str(images), val_masks=str(masks))
    model = refocus.load(recipe.model)
    with pytest.raises(refocus.InputError, match="no image is left to check for harm"):
        selection.choose_samples(one, model)
    unchecked = selection.choose_samples(replace(one, do_no_harm=False), model)
    assert (len(unchecked.select), len(unchecked.check)) == (1, 0)


def test_a_separate_validation_folder(recipe: Recipe, tmp_path: Path) -> None:
    from tests.makers import make_images

    images, masks = make_images(tmp_path / "val", count=2, seed=1)
    model = refocus.load(recipe.model)
    chosen = selection.choose_samples(replace(recipe, val=str(images), val_masks=str(masks)), model)
    assert all(images in s.image.parents for s in chosen.check)
    assert {s.label for s in chosen.select} == {2, 3}
    with pytest.raises(refocus.InputError, match="val_masks: missing"):
        selection.choose_samples(replace(recipe, val=str(images)), model)
    with pytest.raises(refocus.InputError, match="val is missing"):
        selection.choose_samples(replace(recipe, val_masks=str(masks)), model)
    itself = selection.choose_samples(
        replace(recipe, val=recipe.images, val_masks=recipe.masks), model
    )
    assert not {s.image for s in itself.train} & {s.image for s in itself.check}


def test_images_without_a_mask_that_are_skipped_are_counted(
    recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(recipe.masks) / "ant" / "0.png").unlink()
    shutil.rmtree(Path(recipe.masks) / "dog")
    with caplog.at_level("INFO", logger="refocus"):
        selection.choose_samples(replace(recipe, skip_bad=True), refocus.load(recipe.model))
    assert "7 of 24 images left out: no mask (none is left of class 'dog')" in caplog.text


def test_the_papers_protocol_validates_on_all_it_may_and_leaves_out_small_masks(
    recipe: Recipe, tmp_path: Path
) -> None:
    model = refocus.load(recipe.model)
    paper = replace(recipe, protocol="paper", do_no_harm=False, mask_score=0.0)
    chosen = selection.choose_samples(paper, model)
    assert len(chosen.select) == 12  # all of the classes not trained on; ours takes a quarter
    masks = tmp_path / "masks"
    shutil.copytree(recipe.masks, masks)
    rows = [
        {
            "mask": file.relative_to(masks).as_posix(), "score": 0.9, "digest": "",
            "agreement": 0.5, "area": 0.001 if file.name == "0.png" else 0.5,
        }
        for file in sorted(masks.glob("*/*.png"))
    ]  # fmt: skip
    (masks / "masks.json").write_text(json.dumps({"masks": rows}))
    found = selection.choose_samples(replace(paper, masks=str(masks)), model)
    used = [s.image.name for s in (*found.train, *found.select, *found.check)]
    assert used
    assert "0.png" not in used
    ours = replace(paper, protocol="standard", masks=str(masks))
    kept = selection.choose_samples(ours, model)
    assert "0.png" in [s.image.name for s in (*kept.train, *kept.select, *kept.check)]


def test_a_copy_of_an_image_is_in_no_other_part(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Datasets hold photos twice, and a folder to validate on may be a copy."""
    model = refocus.load(recipe.model)
    alone = selection.choose_samples(recipe, model)
    for kind in ("images", "masks"):
        shutil.copytree(getattr(recipe, kind), tmp_path / kind)
    given = {"val": str(tmp_path / "images"), "val_masks": str(tmp_path / "masks")}
    copied = selection.choose_samples(replace(recipe, **given), model)
    trained = {s.image.read_bytes() for s in copied.train}
    parts = [{s.image.read_bytes() for s in some} for some in (copied.select, copied.check)]
    assert not trained & (parts[0] | parts[1])
    assert not parts[0] & parts[1]
    names = [[s.image.name for s in some] for some in (copied.select, copied.check)]
    assert names == [[s.image.name for s in some] for some in (alone.select, alone.check)]
    assert f"{len(trained)} images are copies" in caplog.text


def test_a_photo_counts_once_in_the_check(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    model = refocus.load(recipe.model)
    alone = selection.choose_samples(recipe, model)
    first, *others = [s.image for s in alone.check]
    others[-1].write_bytes(first.read_bytes())
    copied = selection.choose_samples(recipe, model)
    assert [s.image for s in copied.check] == [first, *others[:-1]]
    assert "1 images for the check are copies" in caplog.text


def test_files_of_one_size_are_read_once(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(Path(recipe.images).rglob("*.png"))
    for file in files:
        file.write_bytes(file.name.encode().ljust(9))
    known = fingerprints.Copies(files)
    read: list[Path] = []
    monkeypatch.setattr(fingerprints, "of_file", lambda file: read.append(file) or file.name)
    other = files[0].with_name("other.png")
    other.write_bytes(b"9 letters")
    assert [other in known for _ in range(5)] == [False] * 5
    assert len(read) == len(files) + 5


def test_a_report_leaves_out_copies_of_what_was_trained_on(recipe: Recipe, tmp_path: Path) -> None:
    model = refocus.load(recipe.model)
    train = selection.choose_samples(recipe, model).train
    copy = Path(shutil.copytree(recipe.images, tmp_path / "copy"))
    plan = Plan({"own": copy}, leave_out=frozenset(s.image.resolve() for s in train))
    opened = plan.open("own", model).samples
    assert len(opened) == len([*copy.rglob("*.png")]) - len(train)
    some = train[0].image
    some.unlink()  # gone: known by its path alone
    assert len(plan.open("own", model).samples) == len(opened) + 1
