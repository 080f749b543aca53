"""One walk through images, alone and by several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from refocus import processes
from refocus.errors import InputError
from refocus.evaluation.collect import Question, collect
from refocus.progress import Phase
from refocus.records import Sample, read_lines
from tests.makers import ROOT


@dataclass(frozen=True)
class _Together:
    """What several processes say to each other, between threads."""

    barrier: Barrier
    said: dict[int, Any]

    def gathered(self, rank: int, value: Any) -> list[Any]:
        self.said[rank] = value
        self.barrier.wait(60)
        found = [self.said[r] for r in sorted(self.said)]
        self.barrier.wait(60)  # nobody says more before all have heard this
        return found


@dataclass(frozen=True)
class _Member(processes.Place):
    together: _Together | None = None

    def agreed(self, value: Any) -> Any:
        assert self.together
        return deepcopy(self.together.gathered(self.rank, value)[0])  # as another process has it

    def joined(self, values: list[Any]) -> list[Any]:
        assert self.together
        return [v for part in self.together.gathered(self.rank, values) for v in part]


def walk(root: Path, records: Path, asked: list[str], size: int = 2) -> list[dict[str, Any]]:
    """11 images in batches of `size`; the fourth cannot be read."""
    samples = [Sample(root / f"{n}.png", 0, None) for n in range(11)]

    def load(sample: Sample) -> int:
        if sample.image.stem == "3":
            raise InputError("broken")
        return int(sample.image.stem)

    def answer(some: list[Sample], items: Any) -> Iterator[dict[str, Any]]:
        asked.extend(s.image.stem for s in some)
        # what an answer is must not depend on who shares the walk: the batch is a part of it
        return ({"value": n, "batch": sorted(items)} for n in items)

    question = Question(load, answer)
    return collect(samples, root, question, records=records, batch_size=size)


def test_a_batch_is_counted_at_once_so_that_its_first_image_does_not_seem_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []
    monkeypatch.setattr(Phase, "advance", lambda _self, count=1: counted.append(count))
    walk(tmp_path, tmp_path / "records.jsonl", [], size=4)
    assert counted == [4, 4, 3]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("left", [0, 5])
def test_processes_share_the_images_and_all_know_all(count: int, left: int, tmp_path: Path) -> None:
    alone = walk(tmp_path, tmp_path / "alone.jsonl", [])
    lines = (tmp_path / "alone.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "0.jsonl").write_text("".join(lines[: 2 * left]))  # of an earlier start, cut off
    together = _Together(Barrier(count), {})
    asked: list[list[str]] = [[] for _ in range(count)]

    def member(rank: int) -> list[dict[str, Any]]:
        processes._SHARING.set(_Member(rank, count, together=together))
        return walk(tmp_path, tmp_path / f"{rank}.jsonl", asked[rank])

    with ThreadPoolExecutor(count) as pool:
        every = list(pool.map(lambda rank: copy_context().run(member, rank), range(count)))
    assert every == [alone] * count
    for rank in range(count):  # pages are made of the files, in each process
        assert list(read_lines(tmp_path / f"{rank}.jsonl")) == list(
            read_lines(tmp_path / "alone.jsonl")
        )
    wanted = [str(n) for n in range(2 * left, 11) if n != 3]
    assert sorted(name for mine in asked for name in mine) == sorted(wanted)
    most = -(-len(wanted) // (2 * count)) * 2 + 1
    assert all(len(mine) <= most for mine in asked)


@pytest.mark.parametrize("left", range(11))
def test_a_walk_that_was_cut_off_in_a_batch_answers_the_same_batches(
    left: int, tmp_path: Path
) -> None:
    """What a network answers depends on its batch in the last digit."""
    whole = walk(tmp_path, tmp_path / "whole.jsonl", [], 3)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:left]) + lines[left][:9])
    asked: list[str] = []
    assert walk(tmp_path, tmp_path / "cut.jsonl", asked, 3) == whole
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert asked == [str(n) for n in range(left // 3 * 3, 11) if n != 3]


@pytest.mark.slow
def test_an_audit_of_two_processes_is_that_of_one(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    given = ["audit", "--model", model_folder, "--images", images, "--masks", masks]
    # more images than a batch has, so that both have some
    for folder in (images, masks):
        for file in list(folder.rglob("*.png")):
            for n in range(2):
                os.link(file, file.with_stem(f"{file.stem}-{n}"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    starts = {
        "one": [sys.executable],
        "two": [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
        ],
    }
    for name, start in starts.items():
        subprocess.run(
            [*start, "-m", "refocus", *map(str, given), "--out", str(tmp_path / name)],
            check=True,
            cwd=ROOT,
            env=environment,
        )
    one, two = (json.loads((tmp_path / n / "audit.json").read_text()) for n in ("one", "two"))
    assert one == two
    records = [sorted((tmp_path / n / "records").rglob("*.jsonl")) for n in ("one", "two")]
    assert [p.read_text() for p in records[0]] == [p.read_text() for p in records[1]]
    assert len(records[0]) >= 4
