"""Reports of many records and classes: small pages, made in linear time.

The full size, 50 000 records and 1000 classes, is `benchmarks/growth.py --only report`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import refocus
from refocus.evaluation.classify import read_predictions
from refocus.records import Prediction, Sample
from refocus.reports import strips
from refocus.results import Classification, SuiteEntry
from tests.makers import ROOT


@pytest.fixture(scope="module")
def growth() -> ModuleType:
    file = ROOT / "benchmarks" / "growth.py"
    spec = importlib.util.spec_from_file_location("growth_of_cost", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_a_report_of_many_classes_is_small_and_reads_each_record_few_times(
    growth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {
        which: str(growth.tiny_model(tmp_path / which, classes=60, seed=seed))
        for seed, which in enumerate(("model", "against"))
    }
    images = growth.pictures(tmp_path / "few", 120, classes=60)
    folder = growth.told(tmp_path / "told", images, models)
    read: Counter[str] = Counter()

    def counted(file: Path) -> list[Prediction]:
        read[file.name] += 1
        return read_predictions(file)

    monkeypatch.setattr("refocus.reports.strips.read_predictions", counted)
    monkeypatch.setattr("refocus.reports.report_pictures.read_predictions", counted)
    page = refocus.report(folder).page
    assert len(read) == 10  # five stages of two models
    assert max(read.values()) <= 3
    assert page.stat().st_size < 2 << 20
    text = page.read_text(encoding="utf-8")
    assert sum(f'<td class="text">{name}</td>' in text for name in growth.names(60)) == 0
    rows = (folder / "classes.csv").read_text(encoding="utf-8")
    assert all(name in rows for name in growth.names(60))


@pytest.mark.timeout(30)  # quadratic: each image was compared with all
def test_images_to_show_are_found_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [Sample(Path(f"root/c/{number}.png"), 0) for number in range(20_000)]
    known = {f"c/{number}.png": None for number in range(10, 20_000)}
    monkeypatch.setattr(strips, "_answers", lambda *_: {"": known, "other": known})
    entry = SuiteEntry("classification", 1, {"standard": Classification(None)})  # type: ignore[arg-type]
    scene = strips.Scene(Path(), entry, samples, Path("root"), {}, 0)
    shown = strips._chosen(scene)
    assert [shown[0], shown[-1]] == [samples[10], samples[-1]]
