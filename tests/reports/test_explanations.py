"""`explain` goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refocus import InputError
from refocus.reports import explanations


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
    with pytest.raises(InputError, match="never overwritten"):
        explanations.write(images, refs, tmp_path / "out")
