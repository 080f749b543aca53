"""The bilateral solver against the dense system it stands for, and what it is for: edges."""

from __future__ import annotations

import numpy as np
import pytest

from refocus.masks import bilateral as module
from refocus.masks.bilateral import bilateral


def two_halves(noise: int = 0) -> np.ndarray:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 20:] = 200
    return image + np.random.default_rng(0).integers(0, noise + 1, image.shape, dtype=np.uint8)


def test_the_solution_moves_to_the_edge_of_the_image() -> None:
    target = np.zeros((32, 48))
    target[:, 25:] = 1  # five pixels off
    confidence = np.full(target.shape, 0.01)
    confidence[:, :12] = confidence[:, 34:] = 1
    found = bilateral(two_halves(noise=3), target, confidence) > 0.5
    assert (found == (np.arange(48) >= 20)).all()


def test_a_constant_target_stays_and_no_pixel_leaves_the_range_of_the_targets() -> None:
    flat = np.full((16, 16, 3), 90, np.uint8)
    found = bilateral(flat, np.random.default_rng(0).random((16, 16)), np.ones((16, 16)))
    assert found.min() > 0.2
    assert found.max() < 0.8
    np.testing.assert_allclose(
        bilateral(flat, np.full((16, 16), 0.3), np.ones((16, 16))), 0.3, atol=1e-6
    )


def test_it_solves_the_dense_system() -> None:
    """A slow twin.

    Pixels' vertices by a dictionary, neighbours by comparing coordinates, a dense solver.
    """
    rng = np.random.default_rng(1)
    image = rng.integers(0, 60, (12, 20, 3), dtype=np.uint8)
    target, confidence = rng.random((12, 20)), rng.random((12, 20)) + 0.1
    vertex, blur = module._grid(image)
    count = vertex.max() + 1
    from PIL import Image

    color = np.asarray(Image.fromarray(image).convert("YCbCr")).astype(int)
    y, x = np.mgrid[:12, :20]
    places = np.stack(
        [x // 8, y // 8, color[..., 0] // 16, color[..., 1] // 8, color[..., 2] // 8], -1
    ).reshape(-1, 5)
    unique, order = np.unique(places, axis=0, return_inverse=True)
    assert len(unique) == count
    apart = np.abs(unique[:, None] - unique[None]).sum(-1)
    dense = 10.0 * (apart == 0) + 1.0 * (apart == 1)
    mine = blur.toarray()[
        np.ix_(*[[vertex[list(order.ravel()).index(v)] for v in range(count)]] * 2)
    ]
    np.testing.assert_array_equal(mine, dense)
    scale, mass = module._balanced(blur, np.bincount(vertex).astype(float))
    laplacian = np.diag(mass) - scale[:, None] * blur.toarray() * scale
    system = module.SMOOTHNESS * laplacian + np.diag(np.bincount(vertex, confidence.ravel()))
    exact = np.linalg.solve(system, np.bincount(vertex, (confidence * target).ravel()))[
        vertex
    ].reshape(12, 20)
    np.testing.assert_allclose(bilateral(image, target, confidence), exact, atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (300, 2)])
def test_any_shape_works(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    assert bilateral(image, np.ones(shape), np.ones(shape)).shape == shape
