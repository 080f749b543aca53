from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evidence.measure import SHARES, development, development_images, read_test
from evidence.rows import unpack
from evidence.sources import Source, prepare
from refocus import evaluate
from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from tests.evidence.makers import planted
from tests.makers import Build


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return prepare("planted", planted(tmp_path / "planted"), None, tmp_path / "out")


def test_development_images_are_held_out_and_stand_on_other_classes_backgrounds(
    tiny: Build, source: Source
) -> None:
    model = tiny()
    found = development_images(model, source)
    assert len(found.plain) == 8  # every fourth of 8 images of 4 classes
    assert found.labels.tolist().count(0) == 2
    assert len(found.swapped) == 8 * 8
    first, image = found.plain[:1], found.swapped[:1]
    assert ((first - image).abs().amax((1, 2, 3)) > 0.1).all()
    names = {f.stem for f in source.dev.images.rglob("*.png")}
    assert names == {"0", "4"}
    assert not {f.stem for f in source.pool.images.rglob("*.png")} & names


def test_accuracies_are_those_of_the_weights_on_the_line(tiny: Build, source: Source) -> None:
    model = tiny()
    images = development_images(model, source)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    end = {k: torch.randn_like(v) for k, v in start.items()}
    found = development(model, images, (start, end))
    assert [d.share for d in found] == list(SHARES)
    model.load_state_dict({k: (v + end[k]) / 2 for k, v in start.items()})
    guesses = [model(x[None]).argmax().item() for x in images.plain]
    right = [g == y for g, y in zip(guesses, images.labels.tolist(), strict=True)]
    assert found[1].plain == pytest.approx(100 * sum(right) / len(right))
    assert found[1].score == (found[1].plain + found[1].swapped) / 2


def test_a_test_set_is_read_in_the_order_of_its_names(tiny: Build, source: Source) -> None:
    model = tiny()
    folder = source.test("test_same")
    answers = read_test(model, folder, ["end", "half"])
    assert answers.classes == {"ant": 2, "bee": 2, "cat": 2, "dog": 2}
    files = sorted(folder.rglob("*.png"))
    labels = [["ant", "bee", "cat", "dog"].index(f.parent.name) for f in files]
    see = eval_image(model)
    expected = [
        model(see(read_image(f))[None]).argmax().item() == y
        for f, y in zip(files, labels, strict=True)
    ]
    assert unpack(answers.right["end"], 8).tolist() == expected
    assert answers.right["half"] == answers.right["end"]
    assert len(evaluate(model, folder).predictions) == 8
