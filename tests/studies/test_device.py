"""Where a study computes, and what its seed decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from refocus.processes import Place, take_place
from refocus.studies import conduct, jobs, pictures, registry, start, subset_study
from refocus.studies.jobs import How, Job
from refocus.studies.settings import StudySettings
from refocus.vit import loading


def settings(place: Path, **more: Any) -> StudySettings:
    return StudySettings(
        on=str(place / "images"),
        model=(str(place / "model"),),
        masks=str(place / "masks"),
        **{"shifts": ("mixed-rand",), "epochs": 1, "most": 4, "maps": 4, **more},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table3", "figure2", "appendix-a"])
def test_models_are_measured_and_shown_on_the_device(
    place: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every model that answers is loaded to the device that the order names."""
    device = torch.device("cpu", 0)  # a name of its own, which every machine has
    asked, found = [], []

    def pick(wanted: str) -> torch.device:
        asked.append(wanted)
        return device

    def load(ref: str | Path, **given: Any) -> nn.Module:
        found.append(given.get("device"))
        return loading.load(ref, **given)

    monkeypatch.setattr("refocus.studies.order.pick_device", pick)
    for module in (jobs, pictures, subset_study):
        monkeypatch.setattr(module, "load", load)
    start.study(name, tmp_path / "out", settings(place, device="cpu"), progress=False)
    assert set(asked) == {"cpu"}
    assert found
    assert all(where is device for where in found)


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: taken[-1])
    for local, gpu in ((0, 0), (1, 1), (2, 0)):
        for name, value in (("RANK", 4 + local), ("WORLD_SIZE", 8), ("LOCAL_RANK", local)):
            monkeypatch.setenv(name, str(value))
        mine = take_place()
        assert mine == Place(4 + local, 8, local)
        start.take_gpu(mine)
        assert loading.pick_device("cuda") == torch.device("cuda", gpu)


def test_the_images_of_table3_follow_the_seed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def only(jobs_: Any, ground: Any, out: Any, common: Any, how: How, where: Any) -> None:
        seeds.append(how.seed)
        job = Job("model", registry.ORIGINAL)
        job.records(out, jobs.MAPS).parent.mkdir(parents=True)
        jobs._measure_maps(job, loading.load(place / "model"), ground, out, how, "")
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct, "run", only)
    shown = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        with pytest.raises(KeyboardInterrupt):
            start.study("table3", out, settings(place, seed=seed, device="cpu"), progress=False)
        lines = (out / "records" / "model" / "original" / "maps.jsonl").read_text().splitlines()
        shown.append({json.loads(line)["image"] for line in lines})
    assert seeds == [0, 1]
    assert [len(images) for images in shown] == [4, 4]
    assert shown[0] != shown[1]


@pytest.mark.slow
def test_appendix_a_asks_every_model_about_images_of_its_seed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for seed in (0, 1):
        done = start.study(
            "appendix-a", tmp_path / str(seed), settings(place, seed=seed, device="cpu")
        )
        assert done is not None
        found[seed] = [(row.image, row.target) for row in done.subsets[0].rows]
    assert found[0] != found[1]
