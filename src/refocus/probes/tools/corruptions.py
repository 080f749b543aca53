"""The 15 corruptions of Hendrycks & Dietterich (ICLR 2019).

Made on the fly, and the published ImageNet-C folders with their mCE.

Pictures made here are no ImageNet-C: those were made once, at 224 pixels, from other random
numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refocus.errors import InputError
from refocus.probes.tools.distortions import DISTORTIONS

SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET = {  # mean errors over severities, by which mCE divides (published with ImageNet-C)
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def corrupted(picture: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """One picture uint8 `[H, W, 3]`, corrupted; the same for the same seed.

    NumPy's global generator is left as it is.
    """
    draw = np.random.RandomState(seed)
    found = DISTORTIONS[name](picture / 255.0, severity, draw)
    return np.asarray((np.clip(found, 0, 1) * 255).astype(np.uint8))


def mean_corruption_error(errors: dict[str, float]) -> float | None:
    """mCE in percent, or None unless all 15 corruptions are there.

    Errors in [0, 1], means over the five severities, each divided by AlexNet's.
    """
    if set(errors) != set(ALEXNET):
        return None
    return float(100 * np.mean([errors[name] / ALEXNET[name] for name in ALEXNET]))


def published(root: Path) -> dict[str, Path]:
    """Corruption -> its folder below ImageNet-C's.

    The four groups (noise, blur, weather, digital) may lie between.

    Raises:
        InputError: a corruption or one of its severities is missing.
    """
    found: dict[str, Path] = {}
    for name in ALEXNET:
        place = next(
            (folder for folder in (root / name, *root.glob(f"*/{name}")) if folder.is_dir()), None
        )
        if place is None:
            raise InputError(
                f"‹imagenet_c› {root}: has no folder {name}; expected "
                "CORRUPTION/SEVERITY/WNID/FILE for all 15"
            )
        for severity in SEVERITIES:
            if not (place / str(severity)).is_dir():
                raise InputError(
                    f"‹imagenet_c› {place}: has no folder {severity}; expected are the severities "
                    "1 to 5"
                )
        found[name] = place
    return found


def summary(means: dict[str, list[float]]) -> dict[str, float | None]:
    """What is said of the published folders beside the curves.

    means: corruption -> top-1 in percent at each severity.
    """
    return {
        "mce": mean_corruption_error(
            {name: 1 - float(np.mean(values)) / 100 for name, values in means.items()}
        )
    }
