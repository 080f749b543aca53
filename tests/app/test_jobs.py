"""Runs that the app starts, stops and finds again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from refocus.app import jobs as app_jobs
from refocus.app.jobs import Job, Jobs, command_line
from refocus.app.progress import Progress
from refocus.errors import InputError
from tests.app.makers import wait_until

fcntl = pytest.importorskip("fcntl")  # locks of another kind on Windows


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
    seen = len(progress.losses()["validation"])  # many, on a busy machine
    wait_until(lambda: len(progress.losses()["validation"]) > seen + 3)
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
    assert jobs.running() is None
    jobs.jobs["report-of-run-1"] = jobs.jobs["run-4"] = Job([], tmp_path)  # just started
    assert jobs.runs() == ["run-4", "run-2", "run-1"]
    for name in ("run-3", "x", "../run-1", ""):
        assert name not in jobs
        with pytest.raises(KeyError):
            jobs[name]


def long_job(work: Path, images: Path, masks: Path, model: Path) -> list[str]:
    return command_line(
        "tune", model=model, images=images, masks=masks, out=work / "run-1", epochs=4000, shots=2
    )


@pytest.mark.slow
def test_a_job_that_outlived_its_app_is_found_and_stopped(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The app is another process here, which is killed as soon as its job is at work."""
    work = tmp_path / "work"
    command = long_job(work, *image_folders, model_folder)
    code = (
        "import sys, time; from pathlib import Path; from refocus.app.jobs import Jobs; "
        f"Jobs(Path({str(work)!r})).start('run-1', {command!r}, Path({str(work / 'run-1')!r})); "
        "print('started', flush=True); time.sleep(600)"
    )
    app = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert app.stdout is not None
    assert app.stdout.readline() == b"started\n"
    wait_until((work / "run-1" / "checkpoints" / "last.pt").exists)
    app.kill()
    app.wait()
    app.stdout.close()
    jobs = Jobs(work)
    job = jobs["run-1"]
    assert jobs.running("run-") == "run-1"
    assert job.running
    assert not job.complete
    with pytest.raises(InputError, match=r"another job is running \(run-1\)"):
        jobs.start("run-2", command, work / "run-2")
    job.stop()
    assert not job.running
    written = (work / "run-1" / "history.jsonl").read_bytes()
    time.sleep(1)  # an epoch takes far less
    assert (work / "run-1" / "history.jsonl").read_bytes() == written
    assert Jobs(work).running() is None  # and the next start finds nothing
    assert not list((work / ".jobs").glob("*.json"))


def test_records_of_jobs_that_cannot_be_read_stop_nobody(tmp_path: Path) -> None:
    folder = tmp_path / ".jobs"
    folder.mkdir()
    with (folder / "run-1.json").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Jobs(tmp_path).jobs == {}


@pytest.mark.slow
def test_a_job_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("typer", "rich", "refocus"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w')\nraise SystemExit('error: mine')\n")
    monkeypatch.chdir(tmp_path)
    job = Jobs(tmp_path / "work").start("one", ["tune", "--resume", "nowhere"], tmp_path / "one")
    wait_until(lambda: not job.running)
    assert not (tmp_path / "run").exists()
    assert "not a run folder" in job.words
    assert job.failed


def test_without_locks_no_job_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_jobs, "fcntl", None)  # as on Windows
    jobs = Jobs(tmp_path)
    with pytest.raises(InputError, match="need Linux or macOS"):
        jobs.start("one", ["--version"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
