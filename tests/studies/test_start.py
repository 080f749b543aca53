"""A study from Python: checked settings, then the same files as from the command line."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from refocus import InputError, load
from refocus.studies import datasets, start
from refocus.studies.settings import StudySettings
from refocus.studies.start import estimate, study


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^data or on: give one of them"),
        ({"data": "a", "on": "b"}, "^data or on: give one of them"),
        ({"data": "a", "model": ("m",)}, "^model m: only with on; data names models"),
        ({"data": "a", "masks": "k"}, "^masks k: only with on"),
        ({"data": "a", "shifts": ("size",)}, "^shifts size: only with on"),
        (
            {"on": "a", "model": ("m",), "masks": "k", "models": ("ViT-B",)},
            "^models ViT-B: only with",
        ),
        ({"on": "a", "masks": "k"}, "^model: missing; on needs your model"),
        ({"on": "a", "model": "m"}, "^model m: must be a list"),
        ({"on": "a", "model": ("m",)}, "^masks: missing; a study needs masks.*automatic_masks"),
        ({"data": "a", "mask_polarity": "invert"}, "^mask_polarity invert: only with on"),
        ({"data": "a", "maps": 5}, "^maps 5: only with on"),
        ({"data": "a", "epochs": 0}, "^epochs 0: must be a whole number of at least 1"),
        ({"data": "a", "rates": {"bce": -1.0}}, "^rates bce=-1.0: must be a number above 0"),
        ({"data": "a", "models": ("", "b")}, "^models: must be a text that is not empty"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        StudySettings(**given)


def test_every_shift_of_the_settings_has_a_nearest_suite_of_the_paper() -> None:
    for kind in ("mixed-rand", "location", "rotation", "size"):
        settings = StudySettings(on="a", model=("m",), masks="k", shifts=(kind,))
        assert kind in datasets.LIKE
        assert settings.kept()["shift"] == [kind]


def test_a_study_on_the_papers_data_keeps_no_files_of_its_own() -> None:
    """Folders that were begun before files were kept go on."""
    assert "files" not in StudySettings(data="a").kept()
    own = StudySettings(on="a", model=("m",), masks="k")
    assert len(own.kept()["files"]) == 2
    assert "maps" not in own.kept()
    assert replace(own, maps=5).kept()["maps"] == 5  # other maps are no part of the same folder


@pytest.mark.parametrize("changed", ["weights", "images", "masks"])
def test_a_study_goes_on_only_with_what_it_was_started_with(
    place: Path, tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is one of a hub, of which only the name is given."""
    for part in ("images", "masks"):
        shutil.copytree(place / part, tmp_path / part)
    network, loads = load(place / "model"), start.load
    monkeypatch.setattr(start, "load", lambda ref: network if ref == "hf:a/b" else loads(ref))
    monkeypatch.setattr(start, "check", lambda _order: None)
    monkeypatch.setattr(start, "conduct", lambda order, _place, **_: order)
    settings = StudySettings(
        on=str(tmp_path / "images"),
        model=("hf:a/b",),
        masks=str(tmp_path / "masks"),
        shifts=("mixed-rand",),
        device="cpu",
    )
    out = tmp_path / "out"
    for _ in range(2):  # as it was: goes on
        study("table4", out, settings, progress=False)
    if changed == "weights":
        torch.nn.init.constant_(network.get_parameter("head.bias"), 7)
    else:
        file = next((tmp_path / changed).glob("train/*/*.png"))
        Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
        os.utime(file, ns=(1, 1))
    named = "model" if changed == "weights" else "files"
    with pytest.raises(InputError, match=rf"^out .* other settings \({named}: .* then, .* now"):
        study("table4", out, settings, progress=False)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('imagenet = "c"', 'imagenet = "other"', "suites.imagenet"),
        ('images = "a"', 'images = "other"', "train.images"),
        ('annotated = "b"', 'annotated = "other"', "train.annotated"),
        ('DeiT-S = "d"', 'DeiT-S = "hf:a/b"', "models.DeiT-S"),
        ("one", "two", "models.DeiT-S"),
        ("photo", "other", "train.images, files"),
        ("mask", "another", "train.annotated, files"),
        ("test", "another", "suites.imagenet, files"),
        ('imagenet = "c"', 'imagenet = "c"\nimagenet-a = "e"', ""),
        ("", "", ""),
    ],
)
def test_a_study_on_the_papers_data_goes_on_only_where_they_lie(
    before: str, after: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data sets may be added."""
    text = '[train]\nimages = "a"\nannotated = "b"\n[suites]\nimagenet = "c"\n'
    (tmp_path / "d").mkdir()
    monkeypatch.setattr(start, "check", lambda _order: None)
    monkeypatch.setattr(start, "conduct", lambda _order, _place, **_: None)
    settings = StudySettings(data=str(tmp_path / "sets.toml"), models=("DeiT-S",), device="cpu")

    def begin(change: bool) -> None:
        toml, weights = f'{text}[models]\nDeiT-S = "d"\n', "one"
        pair = (before, after) if change else ("", "")
        (tmp_path / "sets.toml").write_text(toml.replace(*pair))
        (tmp_path / "d" / "model.safetensors").write_text(weights.replace(*pair))
        for folder, content in (("a", "photo"), ("b", "mask"), ("c", "test")):
            if (changed := content.replace(*pair)) != content or not change:
                _written(tmp_path / folder / "0.png", changed)
        study("table1", tmp_path / "out", settings, progress=False)

    begin(False)
    begin(False)
    if named:
        with pytest.raises(InputError, match=rf"other settings \({named}: .* then, .* now"):
            begin(True)
    else:
        begin(True)
        begin(True)
        (tmp_path / "sets.toml").write_text(
            (tmp_path / "sets.toml").read_text().replace('"e"', '"f"')
        )
        if after:
            with pytest.raises(InputError, match=r"suites\.imagenet-a"):
                study("table1", tmp_path / "out", settings, progress=False)


def _written(file: Path, content: str) -> None:
    """Where it is not there already, so that its time stays."""
    if not file.exists() or file.read_text() != content:
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)


@pytest.mark.slow
def test_a_study_from_python(place: Path, tmp_path: Path) -> None:
    settings = StudySettings(
        on=str(place / "images"),
        model=(str(place / "model"),),
        masks=str(place / "masks"),
        shifts=("mixed-rand",),
        epochs=1,
        most=4,
        device="cpu",
    )
    found = study("table4", tmp_path / "out", settings, progress=False)
    assert found is not None
    assert "without Eq. 1" in found.text
    assert (tmp_path / "out" / "table4.html").is_file()
    with pytest.raises(InputError, match="about the paper's own data sets"):
        estimate("table4", settings)
    with pytest.raises(InputError, match=r"^name table7: no such study"):
        study("table7", tmp_path / "other", settings)
    assert not (tmp_path / "other").exists()
