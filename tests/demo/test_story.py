"""The demo's story in small."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refocus import InputError
from refocus.demo import digits, story
from refocus.demo.settings import DemoSettings
from refocus.records import to_json
from refocus.tuning.recipe import Recipe
from tests.makers import ROOT


def test_the_packaged_weights_know_digits_on_any_texture() -> None:
    """The start of the story: no shortcut yet.

    scripts/train_demo_weights.py printed 98.5 % on 1000 images.
    """
    model = story.pretrained()
    labels = np.arange(200) % 10
    for biased in (True, False):
        images, _ = digits.draw(
            labels, np.random.default_rng(3), split="test", biased=biased, faded=False
        )
        with torch.inference_mode():
            guess = (
                model((torch.from_numpy(images).permute(0, 3, 1, 2) - 0.5) / 0.5).argmax(1).numpy()
            )
        assert (guess == labels).mean() > 0.93


def test_the_shortcut_is_planted_as_a_plain_loop_would() -> None:
    """Bit for bit, against the loop in its own words."""
    torch.manual_seed(5)
    rng = np.random.default_rng([5, 99])
    model: Any = story.pretrained()
    model.reset_classifier(10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=4)
    model.train()
    for _ in range(4):
        labels = rng.integers(0, 10, size=8)
        images, _ = digits.draw(labels, rng, split="train", biased=True, faded=True)
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) - 0.5) / 0.5
        loss = torch.nn.functional.cross_entropy(model(pixels), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    planted = story.plant_shortcut(5, epochs=1, size=32, batch=8, progress=False)
    assert not planted.training
    for name, weight in model.state_dict().items():
        assert torch.equal(planted.state_dict()[name], weight), name


def test_the_same_demo_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk stops it after the shortcut was planted; then what is there is read."""
    done: list[str] = []
    row, network = story.DemoRow(1.0, 2.0, 3.0, 4.0, 0.5), story.pretrained()

    def planted(*_: object, **__: object) -> Any:
        done.append("planted")
        return network

    def tuned(recipe: Recipe, folder: Path, **_: object) -> None:
        done.append(recipe.objective)
        if len(done) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(story, "PER_CLASS", {"tune": 1, "in_domain": 1, "shuffled": 1})
    monkeypatch.setattr(story, "plant_shortcut", planted)
    monkeypatch.setattr(story, "tune", tuned)
    monkeypatch.setattr(story, "load", lambda *_, **__: None)
    monkeypatch.setattr(story, "measure", lambda *_, **__: row)
    monkeypatch.setattr(story, "maps_before_after", lambda *_: None)
    monkeypatch.setattr(story, "write_page", lambda *_: None)
    with pytest.raises(OSError, match="No space"):
        story.run(tmp_path / "out", progress=False)
    results = story.run(tmp_path / "out", progress=False)
    assert done == ["planted", "finetune", "relevance", "finetune", "relevance", "refocus"]
    assert story.run(tmp_path / "out", progress=False) == results  # complete: only read
    assert len(done) == 6
    with pytest.raises(InputError, match=r"seed: 0 then, 1 now"):
        story.run(tmp_path / "out", DemoSettings(seed=1), progress=False)


@pytest.mark.slow
def test_the_story_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "PER_CLASS", {"tune": 5, "in_domain": 4, "shuffled": 6})
    genuine = story.plant_shortcut
    monkeypatch.setattr(
        story, "plant_shortcut", lambda seed, **given: genuine(seed, epochs=1, size=320, **given)
    )
    monkeypatch.setattr(
        story, "ROWS", {name: {**row, "epochs": 2} for name, row in story.ROWS.items()}
    )
    results = story.run(tmp_path / "refocus-demo", DemoSettings(seed=1), progress=False)
    assert list(results) == ["biased", "finetune", "relevance", "refocus"]
    for row in results.values():
        assert row.shuffled == pytest.approx((row.trained + row.untrained) / 2)
        assert 0 <= row.background_share <= 1
    kept = json.loads((tmp_path / "refocus-demo" / "results.json").read_text())
    assert kept == to_json(results)
    assert list(kept["biased"]) == [
        "in_domain", "shuffled", "trained", "untrained", "background_share"
    ]  # fmt: skip
    page = (tmp_path / "refocus-demo" / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    assert f"{results['refocus'].untrained:.1f}" in page
    with Image.open(tmp_path / "refocus-demo" / "maps.png") as picture:
        assert picture.width > 800
    assert (
        len(list((tmp_path / "refocus-demo" / "data" / "shuffled" / "masks").rglob("*.png"))) == 60
    )

    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    quick = example.replace("epochs=10", "epochs=1")
    assert quick != example
    exec(quick, names)  # the README's example, on what the demo left behind
    assert names["found"].logits.shape == (1, 10)
    assert names["found"].relevance.shape == (1, 40, 40)
    assert names["found"].patches.shape == (1, 8, 8)
