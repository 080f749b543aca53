"""A finished run is named by the folder of `refocus run`, or by that of `refocus tune`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import refocus
from refocus import InputError, fingerprints, references, runs
from refocus.cli import export
from refocus.reports import card
from refocus.reports.report import report
from refocus.vit.loading import identity, source


@pytest.fixture
def run(model_folder: Path, tmp_path: Path) -> Path:
    """As `refocus run` leaves it, but for what nobody here reads."""
    folder = tmp_path / "run"
    (folder / "tune").mkdir(parents=True)
    for name in ("selection.json", "recipe.json", "manifest.json"):
        (folder / "tune" / name).write_text("{}")
    model_folder.rename(folder / "tune" / "model")
    return folder


@pytest.mark.parametrize("given", ["", "tune", "tune/model"])
def test_a_models_reference_may_name_its_run(run: Path, given: str) -> None:
    ref, model = str(run / given), run / "tune" / "model"
    assert references.resolved(f"{ref}?order=natural") == f"{model}?order=natural"
    assert references.resolved(f"py:a:b@{ref}") == f"py:a:b@{model}"
    assert fingerprints.of_model(ref) == fingerprints.of_model(str(model))
    loaded = refocus.load(ref)
    assert source(loaded) == str(model)
    assert identity(ref, loaded) == identity(str(model), loaded)


@pytest.mark.parametrize("given", ["", "tune", "tune/model"])
def test_export_takes_each(run: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[str] = []

    def keep(model: object, *_: object, **__: object) -> None:
        exported.append(source(model))
        raise InputError("enough")

    monkeypatch.setattr("refocus.vit.onnx.export_onnx", keep)
    with pytest.raises(InputError, match="enough"):
        export.export(str(run / given), run / "model.onnx")
    assert exported == [str(run / "tune" / "model")]


TAKES_A_RUN: dict[str, Callable[[Path], object]] = {
    "finished": runs.finished,
    "write_card": card.write_card,
    "push": lambda folder: card.push(folder, "you/model"),
    "report": report,
}
STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "interrupted": (
        lambda run: (run / "tune" / "manifest.json").unlink(),
        "this run is not complete; resume it first, with `refocus {command}`",
    ),
    "no run": (
        lambda run: (run / "tune" / "selection.json").unlink(),
        "not a finished run of|neither a folder of",
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("given", ["", "tune"])
@pytest.mark.parametrize("name", TAKES_A_RUN)
def test_what_takes_a_run_says_alike_what_is_wrong(
    run: Path, name: str, given: str, state: str
) -> None:
    change, message = STATES[state]
    change(run)
    command = "tune" if given else "run"
    with pytest.raises(InputError, match=message.format(command=command)):
        TAKES_A_RUN[name](run / given)


def test_a_run_that_has_no_model_yet_is_no_model(run: Path) -> None:
    (run / "tune" / "model").rename(run / "elsewhere")
    assert runs.finished(run) == run / "tune"
    with pytest.raises(InputError, match="model is gone; the same `refocus run` again makes it"):
        refocus.load(run)
    (run / "tune" / "manifest.json").unlink()
    with pytest.raises(InputError, match="this run has no model yet; resume it first"):
        refocus.load(run)
    assert refocus.load(run / "elsewhere")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "x" * 5000, "a\0b"])
def test_a_name_is_no_run(name: str) -> None:
    assert runs.tuned(Path(name)) is None
