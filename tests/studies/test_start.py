"""A study from Python: checked settings, then the same files as from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refocus import InputError
from refocus.studies import datasets
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
        assert settings.kept["shift"] == [kind]


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
