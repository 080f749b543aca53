"""Foreground without annotation: TokenCut as published (Wang et al., CVPR 2022), and ours.

Ours cuts each image, learns from all cuts of a folder what an object's key looks like, reads every
image with that and lets the image's like patches share it; the image's own cut stays as the second
opinion (docs/masks.md has each step's worth). N = h w patches, D the width of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from PIL import Image
from scipy.linalg import eigh, solve
from scipy.ndimage import label as connected_parts
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn import functional as F

from refocus.errors import InputError
from refocus.masks.backbones import Keys, Pixels
from refocus.masks.bilateral import bilateral
from refocus.vit.inputs import check_maps, shown

_WEAK = 1e-5  # weight of an edge below the threshold; keeps the graph connected (TokenCut Eq. 4)
# of the cosines, as threshold: DINO's 0.2 cuts nothing off with DINOv2-like keys (docs/masks.md)
_QUANTILE = 0.4
_RIDGE = 1e-2  # of the mean variance of a feature
_BACKGROUND, _OBJECT = 30, 99  # percentiles of a map that are taken as 0 and 1
_SMALL_PART = 0.05  # a part with less than this share of the largest part's evidence is dropped
_CENTRE = 0.2  # width of the centre's weight, as a share of the sides
_KIN = 6  # power of the cosine between two patches: only close kin pull at each other
_PULL = 3.0  # weight of kin beside what a patch says itself; 1 to 10 differ little (docs/masks.md)
_TRUST = 0.01  # least weight of a patch's own value, which an undecided one has


# --- the published rule -------------------------------------------------------------------------


def tokencut(features: Tensor, grid: tuple[int, int], tau: float = 0.2) -> Tensor:
    """One object of an image from its patches' features, as TokenCut was published.

    Split at the mean of the second eigenvector; the side of its largest |value| is foreground, and
    of it the connected part (edges only, no diagonals) that holds that patch (Wang et al., CVPR
    2022, Section 3).

    Args:
        features: keys of the patches `[N, D]`, finite floats, class token dropped.
        grid: (h, w), rows and columns of patches, with h w = N.
        tau: cosine above which two patches are joined, between -1 and 1.

    Returns:
        bool `[h, w]`; True is the object.

    Raises:
        InputError: features that are no finite floats or do not fill the grid, or another tau.

    Examples:
        >>> import torch, refocus
        >>> features = torch.tensor([[1.0, 0.0]]).repeat(16, 1)
        >>> features[[5, 6]] = torch.tensor([0.0, 1.0])  # two patches unlike the others
        >>> refocus.tokencut(features, (4, 4)).int().tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    features = check_maps("features", features, "N, D")
    if not bool(features.isfinite().all()):
        raise InputError("features: hold NaN or infinite values; must be finite floats")
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not -1 <= tau <= 1:
        raise InputError(f"tau: {shown(tau)}; must be a cosine, -1 to 1")
    sides = tuple(grid) if isinstance(grid, Sequence) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise InputError(f"grid: {shown(grid)}; must be two positive whole numbers, (h, w)")
    height, width = sides
    if features.dtype == torch.bfloat16:  # which numpy does not know
        features = features.float()
    if len(features) != height * width or len(features) < 2:
        raise InputError(
            f"tokencut: features {list(features.shape)} do not fill a grid of {height} x {width} "
            "patches"
        )
    vector = second_eigenvector(np.where(cosines(features) > tau, 1.0, _WEAK))
    seed = int(np.abs(vector).argmax())
    side = vector > vector.mean()
    side = side if side[seed] else ~side
    parts, _ = connected_parts(side.reshape(grid))
    return torch.from_numpy(parts == parts.flat[seed])


def cosines(features: Tensor) -> np.ndarray:
    """Cosine of every pair of `[N, D]`: `[N, N]`.

    In numpy, as is all of a cut: in turns, its threads and torch's are slow.
    """
    values = features.detach().cpu().numpy()
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    found: np.ndarray = unit @ unit.T
    return found


def second_eigenvector(weights: np.ndarray) -> np.ndarray:
    """Second smallest generalized eigenvector of `(D - W) x = lambda D x` (TokenCut Eq. 3).

    Symmetric W `[N, N]` > 0 -> `[N]`.

    With `x = D^-1/2 z` it is the second largest of `D^-1/2 W D^-1/2` (Shi and Malik, 2000). The
    largest is known, `D^1/2 1` with eigenvalue 1; it is moved to -1, and Lanczos finds what is then
    the largest.
    """
    scale = weights.sum(1) ** -0.5
    known = (1 / scale) / np.linalg.norm(1 / scale)

    def product(z: np.ndarray) -> np.ndarray:
        z = z.ravel()
        values: np.ndarray = scale * (weights @ (scale * z)) - 2 * known * (known @ z)
        return values

    start = np.random.default_rng(0).standard_normal(len(weights)).astype(weights.dtype)
    tolerance = (
        float(np.finfo(weights.dtype).eps) ** 0.6
    )  # 4e-10 in float64; machine precision itself may never be reached
    values: np.ndarray
    try:
        operator = LinearOperator(weights.shape, matvec=product, dtype=weights.dtype)
        values = (
            scale
            * eigsh(
                operator,
                k=1,
                which="LA",
                v0=start,
                ncv=min(10, len(weights)),
                tol=tolerance,
                maxiter=100,
            )[1][:, 0]
        )
    except (
        ArpackNoConvergence,
        ValueError,
    ):  # (almost) equal eigenvalues, or too few patches for Lanczos
        normalized = scale[:, None] * weights * scale - 2 * np.outer(known, known)
        last = len(weights) - 1
        values = scale * eigh(normalized, subset_by_index=[last, last])[1][:, 0]
    return values


# --- ours: one image ----------------------------------------------------------------------------


def cut(image: Keys) -> np.ndarray:
    """How much each patch belongs to the object, `[h, w]` in [0, 1].

    By this image's own normalized cut.

    Deviations from TokenCut: the threshold is a quantile of the image's cosines, so it fits any
        backbone; the object's side is voted on; the eigenvector stays soft (0 and 1 at the means of
        Otsu's two groups); all parts are kept.
    """
    alike = cosines(image.keys)
    weights = np.where(alike > threshold(alike), np.float32(1), np.float32(_WEAK))
    vector = second_eigenvector(weights).reshape(image.grid).astype(np.float64)
    if not is_object(vector > vector.mean(), image.saliency.numpy().reshape(image.grid)):
        vector = -vector
    if np.ptp(vector) == 0:  # an image of one colour
        return np.zeros(image.grid)
    upper = vector > threshold_otsu(vector)
    low, high = vector[~upper].mean(), vector[upper].mean()
    values: np.ndarray = ((vector - low) / (high - low)).clip(0, 1)
    return values


def threshold(alike: np.ndarray) -> float:
    """The quantile of the cosines `[N, N]`; a sample of the rows is enough for it."""
    return float(np.quantile(alike[:: max(1, len(alike) // 256)], _QUANTILE))


def is_object(side: np.ndarray, saliency: np.ndarray) -> bool:
    """Whether a side of the cut is the object, by a vote of three.

    The object touches the border less, lies nearer to the centre, and the class token attends to it
    more.

    Where it fills the frame the first fails, where it lies aside the second; the third knows
    nothing of places.
    """
    if side.all() or not side.any():
        return True
    votes = [
        border_contact(side) <= border_contact(~side),
        _centre(side.shape)[side].mean() >= _centre(side.shape)[~side].mean(),
        saliency[side].mean() >= saliency[~side].mean(),
    ]
    answer: bool = sum(votes) >= 2
    return answer


def border_contact(side: np.ndarray) -> float:
    """Share of the frame's outermost pixels (or patches) that belong to `side`, bool `[h, w]`."""
    frame = np.ones_like(side)
    frame[1:-1, 1:-1] = False
    return float(side[frame].mean())


def _centre(shape: tuple[int, ...]) -> np.ndarray:
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in shape)
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * _CENTRE**2))


# --- ours: what the images of a folder share ----------------------------------------------------


@dataclass(frozen=True)
class ObjectHead:
    """A linear reading of a key: how much it looks like the objects of many images.

    Those are what their cuts found. weights: `[D + 1]`.
    """

    weights: np.ndarray

    def __call__(self, image: Keys) -> np.ndarray:
        """`[h, w]`, 0 at the image's background and 1 at its object.

        So that a faint object counts as much as a clear one.
        """
        raw = (_inputs(image) @ self.weights).reshape(image.grid)
        low, high = np.percentile(raw, (_BACKGROUND, _OBJECT))
        values: np.ndarray = ((raw - low) / max(high - low, 1e-6)).clip(0, 1)
        return values


def learn_head(images: Iterable[Keys]) -> ObjectHead:
    """Ridge regression from keys to the images' own cuts.

    Only sums over patches are kept, so memory does not grow.
    """
    gram, target = np.zeros(()), np.zeros(())
    for image in images:
        x = _inputs(image)
        gram = gram + x.T @ x
        target = target + x.T @ cut(image).ravel()
    if gram.ndim == 0:
        raise InputError("no readable image to learn from")
    size = len(gram)
    return ObjectHead(np.linalg.solve(gram + _RIDGE * np.trace(gram) / size * np.eye(size), target))


def spread(found: np.ndarray, image: Keys) -> np.ndarray:
    """A map `[h, w]` in [0, 1] that patches of this image with like keys share: `[h, w]`.

    Minimize `pull * sum_ij w_ij (x_i - x_j)^2 / 2 + sum_i c_i (x_i - t_i)^2` over all pairs of
    patches (label propagation; Zhu, Ghahramani and Lafferty, ICML 2003): t is the map, c how far it
    is from undecided, w a power of the cosine above the threshold of `cut`.
    """
    alike = cosines(image.keys).astype(np.float64)
    weights = (alike - threshold(alike)).clip(min=0) ** _KIN
    degrees = weights.sum(1)
    if not degrees.any():  # an image of one colour
        return found
    scale = _PULL / degrees.mean()
    target = found.ravel()
    trust = (2 * np.abs(target - 0.5)).clip(min=_TRUST)
    system = scale * (np.diag(degrees) - weights) + np.diag(trust)
    values: np.ndarray = solve(system, trust * target, assume_a="pos").reshape(found.shape)
    return values.clip(0, 1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool arrays; 1 where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def shipped_head(backbone: str) -> ObjectHead | None:
    """The head that the package carries for a backbone.

    Learned from photographs without masks, scripts/learn_head.py.
    """
    path = files("refocus").joinpath("assets", "heads", f"{backbone}.npy")
    if set("/\\:") & set(backbone) or not path.is_file():
        return None
    with path.open("rb") as file:
        return ObjectHead(np.load(file, allow_pickle=False))


def _inputs(image: Keys) -> np.ndarray:
    """Layer-normalized keys and a constant: `[N, D + 1]`, float64."""
    keys = F.layer_norm(image.keys, image.keys.shape[1:]).double().numpy()
    return np.concatenate([keys, np.ones((len(keys), 1))], axis=1)


# --- ours: patches to pixels --------------------------------------------------------------------


def object_mask(
    look: np.ndarray, pixels: Pixels, *, refine: str = "bilateral"
) -> tuple[Image.Image, float | None]:
    """Map `[h, w]` in [0, 1] as an 8-bit mask (0/255) of the file's size.

    refine: "bilateral" (edge-aware) or "none".

    Beside it the overlap of the mask before and after it followed the image's edges; None without
    refinement.
    """
    fine = soft_mask(look, pixels, refine=refine)
    edges = (
        None
        if refine == "none"
        else overlap(soft_mask(look, pixels, refine="none") > 0.5, fine > 0.5)
    )
    full = np.asarray(Image.fromarray(fine).resize(pixels.size, Image.Resampling.BILINEAR))
    return Image.fromarray((full > 0.5).astype(np.uint8) * 255), edges


def soft_mask(look: np.ndarray, pixels: Pixels, *, refine: str = "bilateral") -> np.ndarray:
    """Map `[h, w]` in [0, 1] at the pixels that the network saw, small parts left out.

    float32 `[H, W]`, object above 0.5.
    """
    soft = F.interpolate(
        torch.from_numpy(look)[None, None].float(),
        size=pixels.picture.shape[:2],
        mode="bilinear",
        align_corners=False,
    )[0, 0].numpy()
    if refine == "bilateral":
        soft = bilateral(
            pixels.picture, soft, (2 * np.abs(soft - 0.5)).clip(min=0.01)
        )  # undecided pixels follow their kin
    return np.where(_small_parts(soft), 0, soft).astype(np.float32)


def _small_parts(soft: np.ndarray) -> np.ndarray:
    """Parts above 0.5 with little evidence beside the largest: bool `[H, W]`.

    Diagonals connect.
    """
    parts, count = connected_parts(soft > 0.5, np.ones((3, 3)))
    evidence = np.bincount(parts.ravel(), soft.ravel(), minlength=count + 1)
    values: np.ndarray = (parts > 0) & (evidence < _SMALL_PART * evidence[1:].max(initial=0))[parts]
    return values
