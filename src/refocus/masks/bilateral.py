"""Edge-aware refinement: the fast bilateral solver (Barron and Poole, ECCV 2016).

On scipy's sparse matrices.

Pixels that are near each other and alike in colour share a vertex of a coarse grid (x, y, luma, two
chroma); the solution is smooth over neighbouring vertices and close to the target where that is
trusted. P pixels, V vertices, V << P.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import cg

SPACE, LUMA, CHROMA = (
    8,
    16,
    8,
)  # pixels, levels, levels a vertex; TokenCut has 16, 16, 8 (docs/masks.md)
SMOOTHNESS = 16.0  # weight of the smoothness term; TokenCut has 256
_ITERATIONS = 25  # of the conjugate gradients, as in TokenCut's solver
_BALANCING = 10  # rounds that make the blur's rows sum to one; it has converged after fewer


def bilateral(
    image: np.ndarray, target: np.ndarray, confidence: np.ndarray, *, smoothness: float = SMOOTHNESS
) -> np.ndarray:
    """Solve for the smooth map nearest to the target, edges of the image kept.

    Minimize `smoothness / 2 * sum_ij w_ij (x_i - x_j)^2 + sum_i c_i (x_i - t_i)^2` (their Eq. 1) on
    the bilateral grid.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        target: t, the map to follow, `[H, W]`.
        confidence: c, how far it is trusted, `[H, W]`, >= 0, not all zero.
        smoothness: weight of the first term.

    Returns:
        float64 `[H, W]`.
    """
    vertex, blur = _grid(image)
    count = blur.shape[0]
    weight = np.bincount(vertex, confidence.ravel(), minlength=count)
    value = np.bincount(vertex, (confidence * target).ravel(), minlength=count)
    balance, mass = _balanced(blur, np.bincount(vertex, minlength=count).astype(float))
    smooth = diags(mass) - diags(balance) @ blur @ diags(balance)  # their Eq. 7
    system = (smoothness * smooth + diags(weight)).tocsr()
    start = value / np.maximum(weight, 1e-9)
    jacobi = diags(1 / np.maximum(system.diagonal(), 1e-9))
    solved, _ = cg(system, value, x0=start, M=jacobi, maxiter=_ITERATIONS, rtol=1e-5)
    values: np.ndarray = solved[vertex].reshape(target.shape)
    return values


def _grid(image: np.ndarray) -> tuple[np.ndarray, csr_matrix]:
    """The vertex of each pixel `[P]`, and the blur between neighbouring vertices `[V, V]`.

    The blur has 2 on the diagonal per axis.
    """
    height, width = image.shape[:2]
    luma, blue, red = (
        np.asarray(c, dtype=np.int64) for c in Image.fromarray(image).convert("YCbCr").split()
    )
    y, x = np.mgrid[:height, :width]
    axes = [
        a.ravel() + 1 for a in (x // SPACE, y // SPACE, luma // LUMA, blue // CHROMA, red // CHROMA)
    ]
    spans = [
        int(a.max()) + 2 for a in axes
    ]  # one empty step at both ends, so that a neighbour never wraps around
    strides = np.cumprod([1, *spans[:-1]])
    keys, vertex = np.unique(
        sum(a * s for a, s in zip(axes, strides, strict=True)), return_inverse=True
    )
    blur = (2.0 * len(axes)) * identity(len(keys), format="csr")
    for stride in strides:
        above = np.searchsorted(keys, keys + stride).clip(max=len(keys) - 1)
        here = np.flatnonzero(keys[above] == keys + stride)
        link = csr_matrix((np.ones(len(here)), (here, above[here])), shape=blur.shape)
        blur = blur + link + link.T
    return vertex.ravel(), blur


def _balanced(blur: csr_matrix, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale the blur to be bistochastic (their Algorithm 1).

    Returns the scale `[V]`, and the row sums it then has `[V]`.
    """
    scale = np.ones_like(mass)
    for _ in range(_BALANCING):
        scale = np.sqrt(scale * mass / (blur @ scale))
    return scale, scale * (blur @ scale)
