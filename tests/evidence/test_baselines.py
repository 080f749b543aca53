from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from evidence import baselines
from evidence.baselines import balanced, draws, equal_groups, errors, robust_loss
from evidence.methods import METHODS
from evidence.sources import Source, prepare
from evidence.work import DECAY, DECAYS, Outcome, Work, stage
from refocus import load
from refocus.vit.loading import save
from tests.evidence.makers import birds, planted
from tests.makers import NAMES, Build

Do = Callable[..., Outcome]


@pytest.fixture
def bird_model(tiny: Build, tmp_path: Path) -> Path:
    model = tiny(num_classes=2)
    model.pretrained_cfg["label_names"] = ["landbird", "waterbird"]
    save(model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return prepare("waterbirds", birds(tmp_path / "birds"), None, tmp_path / "out")


@pytest.fixture
def do(bird_model: Path, source: Source, tmp_path: Path) -> Do:
    def run(method: str, **changes: object) -> Outcome:
        given = {
            "images": 2,
            "half": False,
            "seed": 0,
            "steps": 2,
            "rate": METHODS[method].rate,
            "precision": "fp32",
            **changes,
        }
        work = Work(bird_model, source, folder=tmp_path / "run", **given)  # type: ignore[arg-type]
        return METHODS[method].run(work)

    return run


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", ["erm", "cutmix", "background-randomization", "jtt", "group-dro"])
def test_what_trains_all_weights_moves_them(name: str, do: Do, bird_model: Path) -> None:
    made = do(name)
    before = load(bird_model).state_dict()
    changed = moved(before, made.weights)
    assert {"head.weight", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"} <= changed
    assert made.trained == ["landbird", "waterbird"]
    assert len(set(made.used)) == 16
    again = do(name)
    assert not moved(made.weights, again.weights)  # by the seed alone


@pytest.mark.parametrize("name", ["dfr", "last-layer"])
def test_last_layers_leave_the_network_alone(name: str, do: Do, bird_model: Path) -> None:
    changed = moved(load(bird_model).state_dict(), do(name, rate=10 * METHODS[name].rate).weights)
    assert {"head.weight"} <= changed <= {"head.weight", "head.bias"}


def test_a_last_layer_is_refitted_on_images_held_out_or_on_the_pool(do: Do) -> None:
    held, pool = do("last-layer"), do("last-layer-pool")
    assert len(pool.used) == 16
    assert held.used
    assert not set(held.used) & set(pool.used)


@pytest.mark.slow
def test_lora_is_merged_and_moves_only_linear_layers_and_the_head(do: Do, bird_model: Path) -> None:
    made = do("finetune+lora", rate=1e-2, steps=4)
    before = load(bird_model).state_dict()
    changed = moved(before, made.weights)
    linear = {f"blocks.{i}.{part}.weight" for i in range(3) for part in _LINEAR}
    after = {name for name in before if name.startswith(("norm.", "fc_norm.", "head."))}
    assert linear <= changed <= linear | after


_LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def test_dfr_finds_the_class_and_not_the_place(
    do: Do, monkeypatch: pytest.MonkeyPatch, bird_model: Path
) -> None:
    """Features 0 and 1 say class and place; only balanced groups tell which of them is meant."""
    width = load(bird_model).num_features

    def read(model: object, samples: list, work: Work) -> tuple[Tensor, Tensor]:
        rows = np.random.default_rng(0).normal(0, 0.1, (len(samples), width))
        for row, sample in zip(rows, samples, strict=True):
            row[0] += sample.label
            row[1] += 3 * (work.source.places[sample.image.stem] == "water")
        return torch.tensor(rows, dtype=torch.float32), torch.zeros(len(samples), 2)

    monkeypatch.setattr(baselines, "features", read)
    weight = do("dfr", rate=1.0).weights["head.weight"]
    difference = weight[1] - weight[0]
    assert difference[0] > 5 * difference[1].abs()
    assert (difference == 0).sum() > width / 2  # L1: noise gets nothing at all


@pytest.mark.parametrize("method", ["dfr", "linear-probe"])
def test_a_regression_splits_two_classes_where_it_was_fitted(
    method: str, do: Do, monkeypatch: pytest.MonkeyPatch, bird_model: Path
) -> None:
    """A class that is the sign of feature 0 - 5: the offset has to come out of the scaling."""
    width = load(bird_model).num_features
    kept: list[tuple[Tensor, list[int]]] = []

    def read(model: object, samples: list, work: Work) -> tuple[Tensor, Tensor]:
        found = torch.full((len(samples), width), 5.0) + torch.randn(len(samples), width) / 100
        found[:, 0] += torch.tensor([2.0 * s.label - 1 for s in samples])
        kept.append((found, [s.label for s in samples]))
        return found, torch.zeros(len(samples), 2)

    monkeypatch.setattr(baselines, "features", read)
    monkeypatch.setattr(baselines, "fresh", lambda names: load(bird_model))
    weights = do(method, rate=1.0).weights
    ((found, labels),) = kept
    logits = found @ weights["head.weight"].T + weights["head.bias"]
    assert logits.argmax(1).tolist() == labels


def test_a_probe_reads_the_backbone_and_not_the_base_model(
    tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four classes: the class is the feature with its number, behind unlike offsets and scales."""
    model, backbone = tiny(num_classes=4), tiny(num_classes=4)
    model.pretrained_cfg["label_names"] = NAMES
    save(model, tmp_path / "model")
    source = prepare("planted", planted(tmp_path / "planted"), None, tmp_path / "out")
    kept: list[tuple[Tensor, list[int]]] = []

    def read(asked: object, samples: list, work: Work) -> tuple[Tensor, Tensor]:
        assert asked is backbone
        found = torch.randn(len(samples), backbone.num_features) / 100
        for row, sample in zip(found, samples, strict=True):
            row[sample.label] += 1 + sample.label
        kept.append((found + 5, [s.label for s in samples]))
        return kept[-1][0], torch.zeros(len(samples), 4)

    monkeypatch.setattr(baselines, "features", read)
    monkeypatch.setattr(baselines, "fresh", lambda names: backbone if names == NAMES else None)
    work = Work(tmp_path / "model", source, 0, False, 0, 2, 1.0, "fp32", tmp_path / "run")
    made = METHODS["linear-probe"].run(work)
    assert moved(model.state_dict(), made.weights) > {"head.weight", "blocks.0.attn.qkv.weight"}
    ((found, labels),) = kept
    logits = found @ made.weights["head.weight"].T + made.weights["head.bias"]
    assert logits.argmax(1).tolist() == labels
    regression = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
    whole = make_pipeline(StandardScaler(), regression).fit(found.numpy(), labels)
    expected = torch.from_numpy(whole.decision_function(found.numpy())).float()
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert len(made.used) == len(labels) == 24  # three quarters of tune: the pool


def test_group_weights_move_towards_the_worst_group() -> None:
    shares = torch.full((3,), 1 / 3)
    losses, groups = torch.tensor([1.0, 3.0, 2.0, 2.0]), torch.tensor([0, 0, 1, 1])
    expected = torch.exp(0.01 * torch.tensor([2.0, 2.0, 0.0])) / 3
    expected /= expected.sum()
    loss = robust_loss(losses, groups, shares)
    assert torch.allclose(shares, expected)
    assert math.isclose(loss.item(), (2 * expected[:2].sum()).item(), rel_tol=1e-6)
    for _ in range(2000):
        robust_loss(torch.tensor([0.1, 5.0]), torch.tensor([0, 1]), shares)
    assert shares[1] > 0.99


def test_jtt_draws_errors_more_often(
    do: Do, monkeypatch: pytest.MonkeyPatch, source: Source, bird_model: Path
) -> None:
    chosen: list[Tensor | None] = []
    monkeypatch.setattr(baselines, "steps_of", lambda w, m, i, plan: chosen.append(plan.weights))
    made = do("jtt")
    (weights,) = chosen
    assert weights is not None
    work = Work(bird_model, source, 0, False, 0, 1, 0.1, "fp32", Path("/none"))
    wrong = errors(load(bird_model), source.pool.samples(load(bird_model)), work)
    assert 0 < wrong.sum() < len(wrong)
    assert made.notes == {"early": False, "errors": int(wrong.sum())}
    assert (weights[wrong] == 20).all()
    assert (weights[~wrong] == 1).all()


def test_draws_take_each_image_once_in_turn_or_by_weight() -> None:
    plain = [i for step in draws(16, 4, 0) for i in step]
    assert sorted(plain[:16]) == sorted(plain[16:]) == list(range(16))
    weighted = [i for step in draws(3, 100, 0, torch.tensor([0.0, 1.0, 3.0])) for i in step]
    assert weighted.count(0) == 0
    assert 2 < weighted.count(2) / weighted.count(1) < 4.5


def test_balanced_draws_every_group_alike() -> None:
    groups = [0] * 18 + [1] * 2
    weights = balanced(groups)
    assert torch.isclose(weights[:18].sum(), weights[18:].sum())
    found = equal_groups(np.array(groups), np.random.default_rng(0))
    assert sorted(np.array(groups)[found].tolist()) == [0, 0, 1, 1]
    assert len(set(found)) == 4


def test_the_rate_falls_as_in_the_product() -> None:
    assert stage(0, 100) == 1
    assert [stage(s, 100) for s in (3, 4, 7)] == [1, DECAY, DECAY]
    assert math.isclose(stage(99, 100), DECAY ** (DECAYS - 1))


def test_group_methods_read_group_labels(do: Do) -> None:
    assert do("dfr").notes == do("group-dro").notes == {"groups": 4}


def test_validation_is_divided_into_what_chooses_and_what_refits(source: Source) -> None:
    assert source.held is not None
    dev, held, pool = (
        {f.stem for f in part.images.rglob("*.png")}
        for part in (source.dev, source.held, source.pool)
    )
    assert len(pool) == 16
    assert len(held) == 8
    assert not dev & held
    places = [source.places[stem] == stem.split("-")[1].removesuffix("bird") for stem in dev]
    assert sorted(places) == [False] * 2 + [True] * 6  # one in twenty, at least one of a class
