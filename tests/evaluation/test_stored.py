"""`results.json` and `audit.json` read back: those of today, and those of the first version.

first_version/ was written by the first version, on the two random models and the images below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torchvision.transforms import v2

from refocus.data import transforms
from refocus.data.shifts import KINDS
from refocus.errors import InputError
from refocus.evaluation.stored import read_audit, read_evaluation
from refocus.records import to_json
from tests.makers import NAMES, run, self_contained, stimuli

OLD = Path(__file__).parent / "first_version"


def measured_today(
    monkeypatch: pytest.MonkeyPatch,
    models: tuple[Path, Path],
    folders: tuple[Path, Path],
    root: Path,
) -> Path:
    """The evaluation that first_version/results.json holds, made again."""
    images, masks = folders
    cues = stimuli(root / "cues", ["cat1-dog1", "dog2-cat1", "cat2-cat3", "dog3-ant1"])
    (root / "mapping.json").write_text(json.dumps({"cat": ["cat"], "dog": ["dog", "ant"]}))
    parity = {f"{n}/{i}.png": "odd" if i % 2 else "even" for n in NAMES for i in range(6)}
    rows = "".join(f"{image},{group}\n" for image, group in parity.items())
    (root / "groups.csv").write_text("image,group\n" + rows)
    (own := root / "trained.png").write_bytes((images / "ant" / "0.png").read_bytes() + b"own")
    row = {"image": str(own), "mask": str(masks / "ant" / "0.png")}  # none of those measured
    chosen = [{**row, "label": label} for label in (0, 1)]
    trained = {"train": chosen, "select": chosen, "check": chosen}
    (root / "selection.json").write_text(json.dumps(trained))  # beside the model, as a run has it
    given = ["--model", models[0], "--against", models[1]]
    given += ["--on", f"mine={images}", f"cue-conflict={cues}", "--masks", f"mine={masks}"]
    given += ["--shift", "mixed-same,mixed-rand,size", "--groups", f"mine={root / 'groups.csv'}"]
    given += ["--mapping", root / "mapping.json", "--faithfulness", 4, "--device", "cpu"]
    assert run(monkeypatch, "evaluate", *given, "--out", root / "ev") == 0
    return root / "ev"


def numbers(content: Any, at: str = "") -> dict[str, Any]:
    """Every value by its place; without intervals and calibration, which are made otherwise now."""
    if isinstance(content, dict):
        kept = {
            key: value
            for key, value in content.items()
            if key not in ("interval", "calibration_error", "calibration_change")
        }
        parts = kept.items()
    elif isinstance(content, list | tuple):
        parts = dict(enumerate(content)).items()
    else:
        return {at: content}
    return {key: v for name, part in parts for key, v in numbers(part, f"{at}/{name}").items()}


@pytest.mark.slow
def test_results_of_the_first_version_are_those_of_today(
    monkeypatch: pytest.MonkeyPatch,
    two_model_folders: tuple[Path, Path],
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    # the first version resized masks by the nearest corner, half a pixel off
    monkeypatch.setattr(transforms, "_resized", v2.functional.resize)
    folder = measured_today(monkeypatch, two_model_folders, image_folders, tmp_path)
    today, old = read_evaluation(folder / "results.json"), read_evaluation(OLD / "results.json")
    found, expected = numbers(to_json(today.suites)), numbers(to_json(old.suites))
    assert sorted(found) == sorted(expected)
    assert len(found) > 400
    kept = (OLD / "results.json").read_text()
    for place, value in found.items():
        if place.endswith("/about"):  # each has the words of its day
            assert value == KINDS[place.split("/")[-2]].about
            assert json.dumps(expected[place]) in kept
            continue
        later = place.rpartition("/")[2] in ("p", "corrected", "broken", "scale")
        if later and expected[place] in (None, ""):  # what the first version did not say
            continue
        wanted = pytest.approx(expected[place], abs=1e-4)
        assert value == (wanted if isinstance(value, float) else expected[place]), place
    assert old.suites["mine"].first.calibration_error.model.value is None  # another measure then

    # a whole folder of the first version opens in the report
    text = (OLD / "results.json").read_text().replace("FOLDER/", f"{tmp_path}/")
    (folder / "results.json").write_text(text)
    assert run(monkeypatch, "report", folder) == 0
    page = self_contained(folder / "report.html")
    assert "Before and after" in page
    low, high = old.suites["mine"].first.top1.change.interval
    assert f"{low:+.1f} to {high:+.1f}" in page


def test_an_audit_of_the_first_version_opens() -> None:
    content = json.loads((OLD / "audit.json").read_text())
    found = read_audit(OLD / "audit.json")
    assert found.schema == 2
    assert found.verdict == content["verdict"]
    assert found.entry.masked == 12
    assert [row.name for row in found.classes] == [row["name"] for row in content["classes"]]
    assert [row.bg_gap.value for row in found.classes] == [row["gap"] for row in content["classes"]]
    assert [row.mixed_same for row in found.classes] == [row["same"] for row in content["classes"]]
    assert [row.image for row in found.worst_images] == [
        row["image"] for row in content["worst_images"]
    ]
    gap = content["entry"]["background"]["model"]["bg_gap"]
    assert found.entry.background.model.bg_gap.value == gap["value"]
    assert found.entry.background.model.bg_gap_p == gap["mcnemar"]
    assert list(found.entry.shifts) == list(content["entry"]["shifts"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold a JSON object"),
        ("{", "not a readable JSON file"),
        ("{}", "not what refocus writes"),
        ('{"schema": 3}', "has schema 3, this version of refocus reads 2 and older"),
        ('{"schema": 2, "model": "m"}', "not what refocus writes .*against"),
        ('{"model": "m", "against": null, "seed": 0, "suites": {"a": []}}', "not what refocus"),
        ('{"schema": 2, "model": "m", "against": null, "seed": "x", "suites": {}}', r"\$\.seed"),
    ],
)
def test_what_is_no_result_is_said_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_evaluation(file)
    for read in (read_evaluation, read_audit):
        with pytest.raises(InputError, match=str(file)) as caught:
            read(file)
        assert "\n" not in str(caught.value)
