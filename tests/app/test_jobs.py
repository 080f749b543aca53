"""Runs that the app starts, stops and finds again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from refocus.app.jobs import Job, Jobs, Progress
from refocus.errors import InputError
from tests.app.makers import wait_until


@pytest.mark.slow
def test_a_run_is_stopped_and_goes_on(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    jobs, run = Jobs(tmp_path), tmp_path / "run"
    command = [
        "tune",
        "--model",
        str(model_folder),
        "--images",
        str(images),
        "--masks",
        str(masks),
        "--out",
        str(run),
    ]
    job = jobs.start("one", [*command, "--epochs", "400", "--shots", "2"], run)
    with pytest.raises(InputError, match="another job is running"):
        jobs.start("two", command, tmp_path / "two")
    progress = Progress(run)
    wait_until((run / "checkpoints" / "last.pt").exists)
    tiles = progress.maps()
    assert len(tiles) == 4
    assert tiles[0][0].shape == (32, 32, 3)
    wait_until(lambda: len(progress.losses()["validation"]) > 3)
    changed = progress.maps()
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(tiles, changed, strict=True))
    job.stop()
    assert not job.running
    assert not job.complete
    assert not job.failed
    done = len(progress.losses()["validation"])
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "epochs": done + 3}))
    job = jobs.start("one", ["tune", "--resume", str(run)], run)
    wait_until(lambda: not job.running)
    assert job.complete, job.words
    assert len(progress.losses()["validation"]) == done + 3
    wrong = jobs.start("bad", ["tune", "--resume", str(tmp_path)], tmp_path)
    wait_until(lambda: not wrong.running)
    assert wrong.failed
    wait_until(lambda: "not a run folder" in wrong.words)


def test_runs_of_an_earlier_start(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    assert jobs.runs() == []
    for name, files in (
        ("run-1", ["recipe.json"]),
        ("run-2", ["recipe.json", "manifest.json"]),
        ("run-3", []),
        ("x", ["recipe.json"]),
    ):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    assert jobs.runs() == ["run-2", "run-1"]
    assert [jobs[name].complete for name in jobs.runs()] == [True, False]
    assert not any(jobs[name].running or jobs[name].failed for name in jobs.runs())
    assert jobs.running_run() is None
    jobs.jobs["report-of-run-1"] = jobs.jobs["run-4"] = Job([], tmp_path)  # just started
    assert jobs.runs() == ["run-4", "run-2", "run-1"]
    for name in ("run-3", "x", "../run-1", ""):
        assert name not in jobs
        with pytest.raises(KeyError):
            jobs[name]
