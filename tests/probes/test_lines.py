"""Effective robustness from results of `refocus evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from torch import nn

from refocus.errors import InputError
from refocus.files import write_json
from refocus.probes import lines, measure, page
from refocus.probes.batch import Options
from refocus.probes.material import Material
from refocus.probes.settings import ProbeSettings
from refocus.records import to_json
from refocus.results import (
    Accuracy,
    Classification,
    Estimate,
    Evaluation,
    ShiftEntry,
    SuiteEntry,
)

_N = 400
_CLEAN = (0.6, 0.7, 0.8, 0.9)


def _answers(top1: float, before: float | None) -> Classification:
    def accuracy(value: float) -> Accuracy:
        return Accuracy(
            Estimate(100 * value, None, _N), Estimate(None, None, _N), Estimate(None, None, _N), {}
        )

    return Classification(accuracy(top1), None if before is None else accuracy(before))


def _line(clean: float) -> float:
    return float(expit(0.8 * logit(clean) - 0.7))


def _result(
    folder: Path,
    clean: float,
    shifted: float,
    before: float | None = None,
    name: str = "street",
    protocols: tuple[str, ...] = ("standard",),
    **said: Any,
) -> None:
    folder.mkdir(parents=True)
    old = None if before is None else _line(before)
    shift = ShiftEntry("mixed-rand", 25, answers=_answers(shifted, old))
    suites = {
        "own": SuiteEntry(
            "classification",
            _N,
            {protocol: _answers(clean, before) for protocol in protocols},
            shifts={"mixed-rand": shift},
        ),
        name: SuiteEntry(
            "classification", _N, {protocol: _answers(shifted, old) for protocol in protocols}
        ),
    }
    found = Evaluation("m", None if before is None else "m0", said.pop("seed", 0), suites, **said)
    write_json(folder / "results.json", to_json(found))
    manifest = {"command": "evaluate", "environment": {}, "files": []}
    write_json(folder / "manifest.json", manifest)


def _originals(root: Path) -> Options:
    for at, clean in enumerate(_CLEAN):
        _result(root / f"base{at}", clean, _line(clean))
    return Options(results=root)


def test_a_tuned_model_above_the_line_of_the_others(tmp_path: Path) -> None:
    options = _originals(tmp_path)
    _result(tmp_path / "deeper" / "tuned", 0.8, _line(0.8) + 0.1, before=0.75)
    rows = lines.gathered(options)
    assert [row.image for row in rows][-2:] == ["deeper/tuned (original)", "deeper/tuned (tuned)"]
    assert lines.levels(options) == ["own, mixed-rand", "street"]
    excess = {row.image: row.values for row in lines.above_the_line(rows)}
    assert excess["deeper/tuned (tuned)"][lines.ORIGINAL] == (None, None)
    assert excess["deeper/tuned (tuned)"][lines.TUNED] == pytest.approx((10, 10), abs=0.2)
    assert excess["base1 (original)"][lines.ORIGINAL] == pytest.approx((0, 0), abs=0.2)


def test_the_line_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    clean, shifted = rng.uniform(0.3, 0.9, size=(2, 9))
    tuned = np.arange(9) >= 6
    line = lines.fitted(clean, shifted, tuned)
    slope, intercept = np.polyfit(logit(clean[:6]), logit(shifted[:6]), 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert (line.n, line.originals) == (6, True)
    few = lines.fitted(clean, shifted, np.arange(9) >= 2)  # too few originals: through all
    assert few.slope == pytest.approx(np.polyfit(logit(clean), logit(shifted), 1)[0])
    assert (few.n, few.originals) == (9, False)


def test_an_original_that_several_runs_share_counts_once_and_all_right_has_a_logit(
    tmp_path: Path,
) -> None:
    options = _originals(tmp_path)
    for at in range(3):
        _result(tmp_path / f"run{at}", 1.0, 0.9 + at / 100, before=0.5)
    rows = lines.gathered(options)
    assert len(rows) == 4 + 1 + 3
    assert max(row.values["clean"][0] for row in rows) == pytest.approx(400.5 / 401)


def _identified(folder: Path, *found: tuple[str, list[str]]) -> None:
    write_json(folder / "settings.json", dict(found))


def test_one_model_of_several_results_counts_once_whatever_its_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And two models of the same numbers count twice."""
    for at, (clean, before) in enumerate(((0.6, 0.5), (0.7, 0.5), (0.7, 0.52), (0.9, 0.6))):
        folder = tmp_path / f"run{at}"
        _result(folder, clean, clean - 0.1, before=before)
        base = "two" if at == 3 else "one"
        _identified(
            folder, ("model", [f"m{at}", f"tuned {at}"]), ("against", [f"copy{at}", base, "config"])
        )
    _result(tmp_path / "alone", 0.6, 0.5)  # a tuned one measured alone
    _identified(tmp_path / "alone", ("model", ["elsewhere", "tuned 0"]))
    rows = lines.gathered(Options(results=tmp_path))
    tuned = [row.values["tuned"][0] for row in rows]
    assert sorted(tuned) == [0, 0, 1, 1, 1, 1]
    assert "run2 (original) is the model of run0 (original) with other numbers" in caplog.text
    assert not any("alone" in row.image and "original" in row.image for row in rows)


def test_other_images_under_one_name_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for at, (place, content) in enumerate((("/a", "one"), ("/copy", "one"), ("/b", "two"))):
        _result(tmp_path / f"run{at}", 0.6 + at / 10, 0.5)
        kept = {"suites": {"own": "/o", "street": place}, "files": {"/o": "x", place: content}}
        write_json(tmp_path / f"run{at}" / "settings.json", kept)
    lines.gathered(Options(results=tmp_path))
    assert [record.getMessage() for record in caplog.records] == [
        "street is /a in run0 and /b in run2: a line needs the same images in all results"
    ]


_SAID = {
    "suites": {"own": "/o", "street": "/s"},
    "masks": {"own": "/m"},
    "files": {"/o": "1", "/s": "1", "/m": "1"},
    "leave_out": [],
    "most": None,
    "mask_score": 0.5,
}
_OTHERS: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    ({}, {}, ""),
    ({"precision": "bf16"}, {}, "precision is fp32 in r0 and bf16 in r2: a line needs the same se"),
    ({"seed": 7}, {}, "seed is 0 in r0 and 7 in r2"),
    ({}, {"most": 4}, "most is None in r0 and 4 in r2: a line needs the same setting of shifts in"),
    ({}, {"mask_score": 0}, "mask_score is 0.5 in r0 and 0 in r2"),
    (
        {},
        {"leave_out": ["/o/1.png"]},
        "the number of training images that were left out is 0 in r0 and 1 in r2",
    ),
    (
        {},
        {"files": {**_SAID["files"], "/s": "2"}},
        "street is /s in r0 and /s with other files in r2: a line needs the same images",
    ),
    (
        {},
        {"files": {**_SAID["files"], "/m": "2"}},
        "the masks of own are /m in r0 and /m with other files in r2",
    ),
)


@pytest.mark.parametrize(("said", "settings", "warning"), _OTHERS, ids=lambda x: str(x)[:30])
def test_what_was_measured_otherwise_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    said: dict[str, Any],
    settings: dict[str, Any],
    warning: str,
) -> None:
    for at, clean in enumerate((0.6, 0.7, 0.8)):
        _result(tmp_path / f"r{at}", clean, 0.5, **(said if at == 2 else {}))
        kept = {**_SAID, **(settings if at == 2 else {})}
        write_json(tmp_path / f"r{at}" / "settings.json", kept)
    lines.gathered(Options(results=tmp_path))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(warning)
    assert all(warning in text for text in told)


def test_a_line_is_of_one_protocol(tmp_path: Path) -> None:
    """`standard` where all have it; shifts are always of that one."""
    both, paper = ("standard", "paper"), ("paper",)
    for at, clean in enumerate((0.6, 0.7, 0.8)):
        _result(tmp_path / f"r{at}", clean, clean - 0.1, protocols=both)
    _result(tmp_path / "r3", 0.9, 0.8)
    assert lines.levels(Options(results=tmp_path)) == ["own, mixed-rand", "street"]
    _result(tmp_path / "r4", 0.9, 0.8, protocols=paper)
    with pytest.raises(InputError, match=r"under one protocol .* none \(standard\); none \(paper"):
        lines.gathered(Options(results=tmp_path))
    _result(tmp_path / "only" / "r0", 0.9, 0.8, protocols=paper)
    assert lines.levels(Options(results=tmp_path / "only")) == ["street"]


def test_what_a_run_left_is_tuned_though_it_was_measured_alone(tmp_path: Path) -> None:
    options = _originals(tmp_path / "results")
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "selection.json").write_text("{}")
    _result(tmp_path / "results" / "alone", 0.8, 0.75)
    file = tmp_path / "results" / "alone" / "results.json"
    file.write_text(file.read_text().replace('"m"', f'"{tmp_path}/run/model"'))
    assert "alone (tuned)" in [row.image for row in lines.gathered(options)]


def test_from_results_to_numbers_and_picture(tmp_path: Path) -> None:
    _originals(tmp_path / "results")
    for at, more in enumerate((0.05, 0.07)):
        _result(tmp_path / f"results/run{at}", 0.8, _line(0.8) + more, before=0.75)
    settings = ProbeSettings(results=str(tmp_path / "results"))
    material = Material(None, settings, {"model": "m"})
    models: dict[str, nn.Module] = {"model": nn.Identity()}
    name, out = "effective-robustness", tmp_path / "out"
    measure.check([], models, Material(None, settings), out)
    found = measure._measured(name, models, material, _made(out / name)).numbers
    assert found.headline.model.n == 2
    assert found.headline.model.value == pytest.approx(6, abs=0.2)
    assert found.model.series[lines.ORIGINAL][0].n == 5
    assert (out / name / "picture.png").stat().st_size > 5000
    page.write(out)
    text = (out / page.PAGE).read_text()
    assert f"over images; of {name} over models." in text
    assert "n = 2 models." in text  # the tuned ones, which the number is of
    assert "one line per image" not in text


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_no_probes_are_written_among_the_results_that_they_read(tmp_path: Path) -> None:
    _originals(tmp_path)
    material = Material(None, ProbeSettings(results=str(tmp_path)))
    with pytest.raises(InputError, match="lies inside results"):
        measure.check(["effective-robustness"], {}, material, tmp_path / "out")


def test_what_gives_no_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results of `refocus evaluate`"):
        lines.gathered(Options(results=tmp_path))
    _result(tmp_path / "a", 0.8, 0.7)
    _result(tmp_path / "b", 0.7, 0.5)
    with pytest.raises(InputError, match="results of 2 different models; a line needs at least 3"):
        lines.gathered(Options(results=tmp_path))
    (tmp_path / "c").mkdir()
    write_json(tmp_path / "c" / "results.json", {"other": 1})  # of no evaluation
    _result(tmp_path / "d", 0.7, 0.5, name="other")
    assert lines.levels(Options(results=tmp_path)) == ["own, mixed-rand"]
