"""Settings of audits and reports: what is not legal is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refocus import InputError
from refocus.reports.report import report
from refocus.reports.settings import AuditSettings, ReportSettings


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (AuditSettings, {"most": 1}, "most 1: must be a whole number of at least 2"),
        (AuditSettings, {"mask_score": 1.5}, "mask_score 1.5: must be a number between 0 and 1"),
        (AuditSettings, {"backbone": " "}, "backbone"),
        (AuditSettings, {"device": "tpu"}, "device tpu: must be"),
        (AuditSettings, {"faithful": 2.5}, "faithful 2.5: must be a whole number"),
        (ReportSettings, {"workers": -1}, "workers -1: must be a whole number between 0 and 256"),
        (ReportSettings, {"masks": {"a": "b"}}, "masks a=b: of which suite"),
        (ReportSettings, {"mask_polarity": "invert"}, "mask_polarity invert: only with suites"),
        (ReportSettings, {"suites": {"a": ""}}, "suites"),
        (ReportSettings, {"suites": {3: "images"}}, "suites"),
        (ReportSettings, {"suites": ["images"]}, "suites .*: must be names with a path each"),
    ],
)
def test_what_is_not_legal(kind: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        kind(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"suites": {"a": "b"}}, "suites a=b"),
        ({"most": 5}, "most 5"),
        ({"faithful": 9}, "faithful 9"),
        ({"precision": "bf16"}, "precision bf16"),
        ({"seed": 3}, "seed 3"),
    ],
)
@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["settings.json", "results.json"], "an evaluation, and `refocus evaluate` decides"),
        (["cutout/result.json"], "a folder of probes, and `refocus probe` decides"),
    ],
)
def test_what_is_measured_already_takes_no_options_of_measuring(
    tmp_path: Path, files: list[str], what: str, given: dict[str, Any], said: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=f"^{said}: .* is {what} "):
        report(tmp_path, ReportSettings(**given))


def test_paths_become_text() -> None:
    settings = ReportSettings(suites={"test": Path("images")}, masks={"test": "masks"})
    assert settings.suites == {"test": "images"}


def test_they_load_no_torch() -> None:
    code = "import refocus.reports.settings, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
