"""Shape bias as Geirhos et al. define it.

Mean over mapped classes, same-class pairs dropped, other answers ignored.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import refocus
from refocus.evaluation import cues
from refocus.records import CueDecision
from tests.makers import ROOT, stimuli


class Fixed(nn.Module):
    """Says the same whatever it sees."""

    def __init__(self, shares: list[float], names: list[str] | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(shares).log())
        self.num_classes = len(shares)
        self.pretrained_cfg = {
            "input_size": (3, 16, 16),
            "mean": (0, 0, 0),
            "std": (1, 1, 1),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "label_names": names,
        }

    def forward(self, images: Tensor) -> Tensor:
        return self.bias.expand(len(images), -1)


def test_cues_are_read_from_the_name() -> None:
    assert cues.cue(Path("cat7-elephant12.png")) == ("cat", "elephant")
    with pytest.raises(refocus.InputError, match=r"^a/cat7.png: .*must give both cues"):
        cues.cue(Path("a/cat7.png"))


def test_the_published_table_has_16_classes_of_207() -> None:
    table = cues.mapping(Fixed([1 / 1000] * 1000))
    assert len(table) == 16
    indices = [i for values in table.values() for i in values]
    assert len(indices) == len(set(indices)) == 207
    assert (table["airplane"], table["elephant"], table["bear"]) == (
        [404],
        [385, 386],
        [294, 295, 296, 297],
    )


def test_the_decision_is_of_the_mean_not_of_the_sum_or_the_maximum(tmp_path: Path) -> None:
    root = stimuli(tmp_path, ["cat1-dog1"])
    # sum 0.5 and maximum 0.3 are the dogs', the mean 0.25 the cat's
    model, table = Fixed([0.25, 0.30, 0.10, 0.10, 0.25]), {"cat": [0], "dog": [1, 2, 3], "car": [4]}
    found = cues.decisions(model, root, table)
    assert found.rows == [CueDecision("cat/cat1-dog1.png", "cat", "dog", "cat")]


def row(shape: str, texture: str, decision: str, number: int) -> CueDecision:
    return CueDecision(f"{shape}/{shape}{number}-{texture}1.png", shape, texture, decision)


TABLE = {"cat": [0], "dog": [1], "car": [2]}


def test_shape_bias_counts_shape_against_texture() -> None:
    lines = [
        row("cat", "dog", d, i) for i, d in enumerate(["cat", "cat", "cat", "dog", "car", "car"])
    ]
    lines += [
        row("dog", "dog", "dog", 9),
        row("cat", "knife", "cat", 10),
    ]  # cues agree; a cue outside of the table
    found = cues.shape_bias(lines, TABLE)
    assert found.shape_bias.value == 0.75
    assert found.shape_bias.interval[0] < 0.75 < found.shape_bias.interval[1]
    decisions = (found.shape_decisions, found.texture_decisions, found.other_decisions)
    assert (found.shape_bias.n, found.stimuli, *decisions) == (4, 6, 3, 1, 2)
    assert (found.dropped_same, found.dropped_unmapped) == (1, 1)
    nothing = cues.shape_bias([row("cat", "dog", "car", 0)], TABLE)
    assert nothing.shape_bias.value is None
    assert nothing.shape_bias.interval is None


def test_difference_of_two_models_over_the_same_stimuli() -> None:
    before = [row("cat", "dog", "dog" if i % 2 else "cat", i) for i in range(60)]
    after = [row("cat", "dog", "cat" if i % 3 else "car", i) for i in range(59)]
    found = cues.shape_bias_difference(after, before, TABLE)
    assert found.n == 59
    assert found.difference == pytest.approx(1 - 30 / 59)
    assert 0.3 < found.interval[0] < found.difference < found.interval[1] < 0.7
    assert cues.shape_bias_difference(after, before[:0], TABLE).difference is None


def test_few_decisions_prove_no_change() -> None:
    """Four of five go to the texture: McNemar's p is 0.125; a bootstrap left 0 out."""
    before = [row("cat", "dog", "cat", i) for i in range(60)]
    after = [row("cat", "dog", "dog" if i < 4 else "cat", i) for i in range(60)]
    for n in (5, 60):
        found = cues.shape_bias_difference(after[:n], before[:n], TABLE)
        assert found.difference == pytest.approx(-4 / n)
        assert (found.p, found.decided) == (0.125, 0)
        assert found.interval[1] > 0
    undecided = [row("cat", "dog", "car", i) for i in range(60)]
    few = [*before[:7], *undecided[7:]]
    found = cues.shape_bias_difference([*after[:7], *undecided[7:]], few, TABLE)
    assert found.interval[1] > 0
    assert cues.shape_bias(few, TABLE).shape_bias.n == 7  # of 60 stimuli: few


def test_changes_of_few_decisions_are_covered() -> None:
    """Two models alike; a bootstrap of 6 to 20 decisions left 0 out in up to 10 %."""
    rng = np.random.default_rng(0)
    for n in (6, 20):
        wrong = 0
        for _ in range(100):
            votes = rng.choice(["cat", "dog", "car"], (2, n))
            ours, theirs = ([row("cat", "dog", v, i) for i, v in enumerate(of)] for of in votes)
            found = cues.shape_bias_difference(ours, theirs, TABLE)
            wrong += found.interval is not None and not found.interval[0] <= 0 <= found.interval[1]
        assert wrong <= 5


def test_a_mapping_file_takes_names_and_indices(tmp_path: Path) -> None:
    model, file = (
        Fixed([0.2] * 5, ["tabby", "lion", "beagle", "van", "jeep"]),
        tmp_path / "map.json",
    )
    file.write_text(json.dumps({"cat": ["tabby", 1], "dog": ["beagle"]}))
    assert cues.mapping(model, file) == {"cat": [0, 1], "dog": [2]}
    for content, message in (
        ({"cat": ["tiger"]}, "no class 'tiger'"),
        ({"cat": [7]}, "no class 7"),
        ({"cat": [True]}, "no class True"),
        ({"cat": [0], "dog": ["tabby"]}, "given twice"),
        ({"cat": "tabby"}, "must be JSON such as"),
        ({}, "must be JSON such as"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(refocus.InputError, match=message):
            cues.mapping(model, file)
    with pytest.raises(refocus.InputError, match="mapping: missing"):
        cues.mapping(model)


def test_a_folder_without_any_conflict_is_refused(tmp_path: Path) -> None:
    root = stimuli(tmp_path, ["cat1-cat2", "cat1-knife1"])
    with pytest.raises(
        refocus.InputError, match="no stimulus has two different cues of cat, dog, car"
    ):
        cues.check(root, TABLE)
    assert cues.shape_bias([], TABLE).shape_bias.n == 0


def test_a_name_without_both_cues_does_not_hide_a_conflict(tmp_path: Path) -> None:
    root = stimuli(tmp_path, ["car", "cat1-dog1"])
    cues.check(root, TABLE)
    (root / "cat" / "cat1-dog1.png").unlink()
    stimuli(root, ["cat1-cat2"])
    first = root / "car" / "car.png"
    with pytest.raises(refocus.InputError, match=rf"different cues of .* \(1 .*: {first} first"):
        cues.check(root, TABLE)


def test_unreadable_stimuli_are_recorded_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = stimuli(tmp_path, ["cat1-dog1", "cat2-dog1"])
    (root / "cat" / "cat2-dog1.png").write_text("no image")
    (root / "cat" / "odd.png").write_bytes((root / "cat" / "cat1-dog1.png").read_bytes())
    found = cues.decisions(Fixed([0.5, 0.5]), root, {"cat": [0], "dog": [1]})
    assert list(found.unreadable) == ["cat/cat2-dog1.png", "cat/odd.png"]
    assert cues.shape_bias(found.rows, {"cat": [0], "dog": [1]}).stimuli == 1
    assert caplog.text.count("skipped: ") == 2
    (root / "cat" / "cat1-dog1.png").unlink()
    with pytest.raises(refocus.InputError, match="none of its 2 stimuli can be read"):
        cues.decisions(Fixed([0.5, 0.5]), root, {"cat": [0], "dog": [1]})


def test_the_mapping_of_the_examples_fits_the_real_model(shared: Path) -> None:
    model = refocus.load(shared / "models" / "vit_small_caltech100", pretrained=False)
    table = cues.mapping(model, ROOT / "examples" / "cues_caltech101.json")
    assert len(table) == 9
    cues.check(shared / "data" / "cue_conflict", table)


def test_real_stimuli_tell_their_cues(shared: Path) -> None:
    root = shared / "data" / "cue_conflict"
    samples = cues.stimuli(root)
    assert len(samples) == 160
    pairs = [cues.cue(s.image) for s in samples]
    assert len({shape for shape, _ in pairs} | {texture for _, texture in pairs}) == 16
    assert all(shape == s.image.parent.name for s, (shape, _) in zip(samples, pairs, strict=True))
