"""Processes that share a folder: each job is done once, also one that a dead process left."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from refocus import locks
from refocus.files import write_json
from refocus.processes import Place
from refocus.studies import datasets, jobs, registry
from refocus.studies.jobs import How, Job

HOLDER = """
import sys
from pathlib import Path
from refocus import locks
locks.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_job_of_another_process_is_left_to_it_until_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def one(job: Job, _ground: Any, out: Path, _common: Any, _how: How) -> None:
        done.append(job.variant.name)
        write_json(job.done(out, "natural"), {})

    monkeypatch.setattr(jobs, "_one", one)
    monkeypatch.setattr(jobs, "_POLL", 0.05)
    todo = [Job("m", v) for v in (registry.ORIGINAL, registry.PUBLISHED, registry.OURS)]
    held = todo[0].records(tmp_path, "").parent
    held.mkdir(parents=True)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    ground = datasets.Ground({"m": "x"}, tmp_path, {}, {}, own=True)
    how = How(("natural",), torch.device("cpu"))
    mine = threading.Thread(target=jobs.run, args=(todo, ground, tmp_path, {}, how, Place()))
    mine.start()
    time.sleep(0.5)
    assert done == ["relevance", "refocus"]
    assert mine.is_alive()
    other.kill()  # without a word, as a machine that goes down
    other.communicate()
    mine.join(timeout=30)
    assert done == ["relevance", "refocus", "original"]


def test_processes_begin_at_different_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def one(job: Job, _ground: Any, out: Path, _common: Any, _how: How) -> None:
        done.append(job.variant.name)
        write_json(job.done(out, "natural"), {})

    monkeypatch.setattr(jobs, "_one", one)
    todo = [Job("m", v) for v in (registry.ORIGINAL, registry.PUBLISHED)]
    ground = datasets.Ground({"m": "x"}, tmp_path, {}, {}, own=True)
    how = How(("natural",), torch.device("cpu"))
    jobs.run(todo, ground, tmp_path, {}, how, Place(1, 2))
    assert done == ["relevance", "original"]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert not locks.is_free(tmp_path)
    threading.Timer(0.3, other.kill).start()
    with locks.waited(tmp_path):
        assert other.poll() is not None
    other.communicate()
    assert not (tmp_path / locks.LOCK).exists()
