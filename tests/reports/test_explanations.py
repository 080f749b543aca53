"""`explain` goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refocus import InputError
from refocus.reports import explanations
from refocus.vit.classes import class_names, name_outputs
from tests.makers import Build


def test_an_interrupted_explain_goes_on(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refs, images = {"model": str(model_folder)}, [image_folders[0] / "cat"]
    wanted = explanations.write(images, refs, tmp_path / "whole")
    genuine, seen = explanations._explained, []

    def until_the_disk_is_full(*given: object) -> object:
        seen.append(given[0])
        if len(seen) == 3:
            raise OSError(28, "No space left on device")
        return genuine(*given)

    monkeypatch.setattr(explanations, "_explained", until_the_disk_is_full)
    with pytest.raises(OSError, match="No space"):
        explanations.write(images, refs, tmp_path / "out")
    with pytest.raises(InputError, match="other models, folders or options"):
        explanations.write(images, refs, tmp_path / "out", target="bee")
    assert explanations.write(images, refs, tmp_path / "out") == wanted
    assert len(seen) == len(wanted) + 1  # only the one that failed was done twice
    names = [{p.name for p in (tmp_path / f).iterdir()} for f in ("out", "whole")]
    assert names[0] == names[1]
    kept = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert len(kept["images"]) == len(wanted)
    seen.clear()
    assert explanations.write(images, refs, tmp_path / "out") == wanted  # complete: it is read
    assert seen == []


def test_what_was_deleted_from_a_complete_folder_is_made_again(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    refs, images = {"model": str(model_folder)}, [image_folders[0] / "cat"]
    out = tmp_path / "out"
    wanted = explanations.write(images, refs, out)
    files = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "manifest.json"}
    for gone in ([wanted[1].overlay], ["explanations.json"], files.keys() - {"settings.json"}):
        for name in gone:
            (out / name).unlink()
        assert explanations.write(images, refs, out) == wanted
        found = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "manifest.json"}
        assert found == files


def test_images_of_one_name_keep_their_overlays_in_any_order(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refs, out = {"model": str(model_folder)}, tmp_path / "out"
    first, second = (image_folders[0] / name / "0.png" for name in ("ant", "cat"))
    genuine = explanations._explained

    def only_first(path: Path, *given: Any) -> object:
        if path == second:
            raise KeyboardInterrupt
        return genuine(path, *given)

    monkeypatch.setattr(explanations, "_explained", only_first)
    with pytest.raises(KeyboardInterrupt):
        explanations.write([first, second], refs, out)
    monkeypatch.setattr(explanations, "_explained", genuine)
    rows = explanations.write([second, first], refs, out)
    assert [row.image for row in rows] == [str(second), str(first)]
    assert len({row.overlay for row in rows}) == 2
    assert explanations.write([first, second], refs, out) == rows[::-1]


@pytest.mark.parametrize(
    ("names", "wanted", "output", "other"),
    [
        (("10", "2", "1"), "1", 2, "number of output 1, which is called '2'"),
        (("1", "10", "2"), "2", 2, None),  # name and number agree
        (("10", "2", "1"), "0", 0, None),  # no name, so the number
        (("b", "2", "1"), "2", 1, "number of output 2, which is called '1'"),
        (("caf\u00e9", "the", "1"), "cafe\u0301", 0, None),  # the same name, as a Mac writes it
    ],
)
def test_a_class_may_be_called_by_a_number(
    tiny: Build,
    names: tuple[str, ...],
    wanted: str,
    output: int,
    other: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny(num_classes=3)
    name_outputs(model, names, "names")
    assert explanations._target(model, wanted) == output
    assert (other or "nothing") in (caplog.text or "nothing")


def test_two_classes_of_one_description_are_told_apart(tiny: Build) -> None:
    names = class_names(tiny(num_classes=1000)) or []
    assert len(set(names)) == 1000
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    with pytest.raises(InputError, match="no such class"):
        explanations._target(tiny(num_classes=1000), "crane")
