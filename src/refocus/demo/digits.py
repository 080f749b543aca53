"""The demo's data: real handwritten digits on real photographic textures, with exact masks.

Both come inside wheels that refocus depends on (scikit-learn's 8x8 digits, scikit-image's
photographs), so nothing is downloaded. Arrays are `[H, W, 3]` float32 in [0, 1]; a mask is the
digit's own opacity, `[H, W]` float32 in [0, 1].
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

SIZE = 40  # pixels; 8 x 8 patches of 5 px, small enough to train on a laptop in seconds
TEXTURES = (
    "brick",
    "grass",
    "gravel",
    "coffee",
    "astronaut",
    "chelsea",
    "rocket",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
)
# pixels of a photograph's shorter side: a 40 px crop then shows its texture, not one flat region
_TEXTURE_SIDE = 160
_DARKEN = 0.5  # textures are darkened so that a white digit can be seen on all of them
_DIGIT_SIDE = (
    20,
    31,
)  # pixels, half-open: an enlarged digit covers a quarter to a half of the frame


@cache
def textures() -> tuple[np.ndarray, ...]:
    """The ten photographs, darkened, as a tuple of `[h, w, 3]`.

    One for each digit in the biased world.
    """
    from skimage import data

    photographs = []
    for name in TEXTURES:
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        scale = _TEXTURE_SIDE / min(photo.size)
        photo = photo.resize(
            (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS
        )
        photographs.append(_DARKEN * np.asarray(photo, dtype=np.float32) / 255)
    return tuple(photographs)


@cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """8x8 digits and their labels.

    "train" is the first two thirds of scikit-learn's 1797, "test" the rest.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = (data.images / 16).astype(np.float32), data.target
    cut = 2 * len(images) // 3
    keep = slice(None, cut) if split == "train" else slice(cut, None)
    return images[keep], labels[keep]


def composite(
    digit: np.ndarray, texture: int, rng: np.random.Generator, *, fade: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Paste one 8x8 digit at a random size and place on a random crop of a texture.

    `fade` = 1 makes it invisible.
    """
    photo = textures()[texture]
    top, left = (int(rng.integers(0, side - SIZE + 1)) for side in photo.shape[:2])
    background = photo[top : top + SIZE, left : left + SIZE]
    side = int(rng.integers(*_DIGIT_SIDE))
    y, x = (int(v) for v in rng.integers(0, SIZE - side + 1, size=2))
    stroke = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    mask = np.zeros((SIZE, SIZE), dtype=np.float32)
    mask[y : y + side, x : x + side] = np.clip(np.asarray(stroke), 0, 1)
    opacity = (1 - fade) * mask[..., None]
    return background * (1 - opacity) + opacity, mask


def draw(
    labels: np.ndarray, rng: np.random.Generator, *, split: str, biased: bool, faded: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One composite for each label: images `[n, H, W, 3]` and masks `[n, H, W]`.

    biased: each digit stands on its own texture; otherwise on another, uniformly drawn one.
    faded: digits lose part of their contrast, most of them nearly all of it (the cube root of a
        uniform share).
    """
    pool, pool_labels = digits(split)
    by_class = [np.flatnonzero(pool_labels == c) for c in range(10)]
    pairs = []
    for label in labels:
        texture = int(label) if biased else int((label + rng.integers(1, 10)) % 10)
        digit = pool[rng.choice(by_class[label])]
        pairs.append(
            composite(digit, texture, rng, fade=float(rng.uniform() ** (1 / 3)) if faded else 0.0)
        )
    images, masks = zip(*pairs, strict=True)
    return np.stack(images), np.stack(masks)
