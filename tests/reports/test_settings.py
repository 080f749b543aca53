"""Settings of audits and reports: what is not legal is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refocus import InputError
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
        (ReportSettings, {"suites": {"a": ""}}, "suites"),
        (ReportSettings, {"suites": {3: "images"}}, "suites"),
        (ReportSettings, {"suites": ["images"]}, "suites .*: must be names with a path each"),
    ],
)
def test_what_is_not_legal(kind: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        kind(**given)
    assert "\n" not in str(caught.value)


def test_paths_become_text() -> None:
    settings = ReportSettings(suites={"test": Path("images")}, masks={"test": "masks"})
    assert settings.suites == {"test": "images"}


def test_they_load_no_torch() -> None:
    code = "import refocus.reports.settings, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
