"""How each corruption of ImageNet-C changes a picture, on NumPy, SciPy, scikit-image and Pillow.

Parameters and random draws are those of the published code (Hendrycks & Dietterich, ICLR 2019,
Apache 2.0), so a picture and a seed give what that code gives; tests/golden pins it.

Axes: pictures are floats `[H, W, 3]` in [0, 1]; functions return the same, not clipped.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.resources import as_file, files

import numpy as np
from PIL import Image
from scipy.ndimage import convolve, map_coordinates, zoom
from scipy.signal import oaconvolve
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from skimage.util import random_noise

Draw = np.random.RandomState
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_FROSTS = 6

# severity 1 to 5
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation
_PHOTONS = (60, 25, 12, 5, 3)  # at white
_SALT = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of values
_DISK = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius, blur of its edge
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, reach, rounds
_MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
_ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # end, step
_SNOW = (  # mean, deviation, zoom, threshold, radius, sigma, share of the picture
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
_FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # picture, frost
_FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))  # strength, decay
_BRIGHT = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
_ELASTIC = (0.05, 0.065, 0.085, 0.1, 0.12)
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
_JPEG = (25, 18, 15, 10, 7)


# --- noise --------------------------------------------------------------------------------------


def gaussian_noise(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Normal noise."""
    return x + draw.normal(size=x.shape, scale=_NOISE[severity - 1])


def shot_noise(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Poisson noise, as of few photons."""
    photons = _PHOTONS[severity - 1]
    return draw.poisson(x * photons) / float(photons)


def impulse_noise(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Salt and pepper."""
    noisy = random_noise(x, "s&p", rng=seed_of(draw), amount=_SALT[severity - 1])
    return np.asarray(noisy)


def seed_of(draw: Draw) -> int:
    """The number that a generator was seeded with."""
    return int(draw.get_state(legacy=False)["state"]["key"][0])


# --- blur ---------------------------------------------------------------------------------------


def defocus_blur(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """The mean over a disk."""
    radius, edge = _DISK[severity - 1]
    reach = max(radius, 8)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-(taps**2) / (2 * edge**2))
    weights /= weights.sum()
    disk = convolve(disk / disk.sum(), np.outer(weights, weights), mode="mirror")
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return np.asarray(oaconvolve(padded, disk[..., None], mode="valid", axes=(0, 1)))


def glass_blur(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Pixels replaced by near ones, between two Gaussian blurs."""
    sigma, reach, rounds = _GLASS[severity - 1]
    soft = (gaussian(x, sigma=sigma, channel_axis=-1) * 255).astype(np.uint8)
    height, width = soft.shape[:2]
    from_ = np.arange(height * width).tolist()
    count = (height - 2 * reach) * (width - 2 * reach)
    for _ in range(rounds):
        moves = iter(draw.randint(-reach, reach, size=(max(count, 0), 2)).tolist())
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                right, down = next(moves)
                # the published code means to swap, but the second pixel keeps its value
                from_[row * width + column] = from_[(row + down) * width + column + right]
    moved = soft.reshape(-1, 3)[from_].reshape(soft.shape)
    return np.asarray(gaussian(moved / 255.0, sigma=sigma, channel_axis=-1))


def motion_blur(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Along a line at a random angle."""
    radius, sigma = _MOTION[severity - 1]
    return _moved(x, radius, sigma, draw.uniform(-45, 45))


def _moved(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """A weighted mean of shifted copies; half a Gaussian, so that one end is sharp."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    blurred = np.zeros_like(x)
    for step, weight in zip(steps, weights, strict=True):
        dy, dx = -math.ceil(step * down - 0.5), -math.ceil(step * right - 0.5)
        if abs(dy) >= x.shape[0] or abs(dx) >= x.shape[1]:
            break
        blurred += weight * _shifted(x, dy, dx)
    return blurred


def _shifted(x: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Moved by whole pixels; what comes in at a side repeats the pixels at that side."""
    rows = np.clip(np.arange(x.shape[0]) - dy, 0, x.shape[0] - 1)
    columns = np.clip(np.arange(x.shape[1]) - dx, 0, x.shape[1] - 1)
    return x[rows][:, columns]


def zoom_blur(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """The mean of ever larger copies."""
    end, step = _ZOOM[severity - 1]
    factors = np.arange(1, end, step)
    total = x.copy()
    for factor in factors:
        layer = _zoomed(x, float(factor))[: x.shape[0], : x.shape[1]]
        total[: layer.shape[0], : layer.shape[1]] += layer
    return total / (len(factors) + 1)


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a picture, enlarged to at least its size."""
    sides = [math.ceil(side / factor) for side in x.shape[:2]]
    top, left = ((side - kept) // 2 for side, kept in zip(x.shape[:2], sides, strict=True))
    middle = x[top : top + sides[0], left : left + sides[1]]
    return np.asarray(zoom(middle, (factor, factor, 1), order=1))


# --- weather ------------------------------------------------------------------------------------


def snow(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Streaks of flakes over a whitened picture."""
    mean, deviation, factor, least, radius, sigma, share = _SNOW[severity - 1]
    flakes = _zoomed(draw.normal(size=x.shape[:2], loc=mean, scale=deviation)[..., None], factor)
    flakes = np.clip(np.where(flakes < least, 0, flakes)[..., 0], 0, 1)
    flakes = _moved(flakes, int(radius), sigma, draw.uniform(-135, -45))
    flakes = (np.round(flakes * 255) / 255)[: x.shape[0], : x.shape[1], None]
    grey = (x @ _GREY)[..., None]
    white = share * x + (1 - share) * np.maximum(x, grey * 1.5 + 0.5)
    return np.asarray(white + flakes + np.rot90(flakes, k=2))


def frost(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """One of six pictures of frost over it."""
    share, of_frost = _FROST[severity - 1]
    number = draw.randint(_FROSTS)
    picture = _frosts()[number]
    height, width = x.shape[:2]
    factor = 1.1 * max(height / picture.height, width / picture.width, 1)
    size = (math.ceil(picture.width * factor), math.ceil(picture.height * factor))
    large = _large_frost(number, size[::-1]) / 255
    top, left = draw.randint(0, size[1] - height), draw.randint(0, size[0] - width)
    return share * x + of_frost * large[top : top + height, left : left + width]


@cache
def _frosts() -> list[Image.Image]:
    folder = files("refocus") / "assets" / "frost"
    found = []
    for number in range(1, _FROSTS + 1):
        name = f"frost{number}.{'webp' if number <= 3 else 'jpg'}"
        with as_file(folder / name) as path, Image.open(path) as picture:
            found.append(picture.convert("RGB"))
    return found


@lru_cache(maxsize=2 * _FROSTS)  # pictures of one size share them
def _large_frost(number: int, size: tuple[int, int]) -> np.ndarray:
    picture = np.asarray(_frosts()[number], np.float64)
    return _enlarged(picture, size).astype(np.uint8)


def _enlarged(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[H, W, 3]` of 0 to 255 to a size, by Keys' cubic convolution with OpenCV's a = -0.75."""
    for axis, side in enumerate(size):
        places = (np.arange(side) + 0.5) * x.shape[axis] / side - 0.5
        first = np.floor(places).astype(int)
        total = np.zeros((*x.shape[:axis], side, *x.shape[axis + 1 :]))
        for tap in range(-1, 3):
            near = np.clip(first + tap, 0, x.shape[axis] - 1)
            weights = _cubic(np.abs(places - first - tap))
            total += np.moveaxis(np.moveaxis(x.take(near, axis), axis, -1) * weights, -1, axis)
        x = total
    return np.asarray(np.clip(np.round(x), 0, 255))


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def fog(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """A fractal of clouds."""
    strength, decay = _FOG[severity - 1]
    side = 2 ** (max(x.shape) - 1).bit_length()
    clouds = _plasma(side, decay, draw)[: x.shape[0], : x.shape[1], None]
    white = x.max()
    return np.asarray((x + strength * clouds) * white / (white + strength))


def _plasma(side: int, decay: float, draw: Draw) -> np.ndarray:
    """The diamond-square fractal `[side, side]` in [0, 1], which closes on itself."""
    heights = np.zeros((side, side), np.float32)
    step, rough = side, 100.0

    def settle(neighbours: np.ndarray) -> np.ndarray:
        return neighbours / 4 + rough * draw.uniform(-rough, rough, neighbours.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        squares = corners + np.roll(corners, -1, axis=0)
        squares = squares + np.roll(squares, -1, axis=1)
        heights[half::step, half::step] = settle(squares)
        middles = heights[half::step, half::step]
        above = middles + np.roll(middles, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = settle(above)
        beside = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = settle(beside)
        step, rough = half, rough / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())


# --- digital ------------------------------------------------------------------------------------


def brightness(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """A larger value in HSV."""
    colours = rgb2hsv(x)
    colours[..., 2] = np.clip(colours[..., 2] + _BRIGHT[severity - 1], 0, 1)
    return np.asarray(hsv2rgb(colours))


def contrast(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Nearer to the mean of each channel."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((x - mean) * _CONTRAST[severity - 1] + mean)


def elastic_transform(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Pixels moved by a smooth random field."""
    height, width = x.shape[:2]
    most, strength = 0.005 * height, 250 * _ELASTIC[severity - 1]
    sigma = np.array([height, width]) * 0.01
    right, down = (
        gaussian(draw.uniform(-most, most, (height, width)), sigma, mode="reflect", truncate=3)
        * strength
        for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width]
    places = [rows + down, columns + right]
    channels = [map_coordinates(x[..., c], places, order=1, mode="reflect") for c in range(3)]
    return np.stack(channels, axis=-1)


def pixelate(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Fewer and larger pixels."""
    share, picture = _PIXELATE[severity - 1], _as_picture(x)
    small = (int(picture.width * share), int(picture.height * share))
    coarse = picture.resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize(picture.size, Image.Resampling.NEAREST)) / 255


def jpeg_compression(x: np.ndarray, severity: int, draw: Draw) -> np.ndarray:
    """Saved as JPEG of low quality."""
    buffer = io.BytesIO()
    _as_picture(x).save(buffer, "JPEG", quality=_JPEG[severity - 1])
    with Image.open(buffer) as picture:
        return np.asarray(picture) / 255


def _as_picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray((x * 255).round().astype(np.uint8))


DISTORTIONS: dict[str, Callable[[np.ndarray, int, Draw], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
