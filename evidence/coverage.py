"""How often the intervals of `evidence.intervals` hold the truth: simulated fields of five draws.

    python -m evidence.coverage

First fields in which draws alone vary (normal), with the widening and with a plain bootstrap; then
fields in which images differ in difficulty, draws in skill, and every answer has chance of its own.
"""

from __future__ import annotations

import argparse
from unittest import mock

import numpy as np

from evidence import intervals
from evidence.intervals import estimate, image_counts, per_draw

DRAWS, IMAGES = 5, 300
_DIFFICULTY, _SKILL = 1.5, 0.4  # of the images: deviation and mean, on the scale of logits


def draws_alone(runs: int, rng: np.random.Generator) -> float:
    """Share of intervals that hold the mean of five normal values, in percent."""
    held = 0
    for run in range(runs):
        found = estimate(np.repeat(rng.normal(0, 1, DRAWS)[None], 1001, axis=0), seed=run)
        held += found.low <= 0 <= found.high
    return 100 * held / runs


def draws_and_images(runs: int, spread: float, rng: np.random.Generator) -> float:
    """The same for accuracies; `spread`: deviation of the draws' skill, in logits."""
    everyone = rng.normal(_SKILL, _DIFFICULTY, (20_000, 1)) + rng.normal(0, spread, (1, 50))
    truth, held = 100 * _logistic(everyone).mean(), 0
    for run in range(runs):
        skill = rng.normal(_SKILL, _DIFFICULTY, (1, IMAGES)) + rng.normal(0, spread, (DRAWS, 1))
        right = (rng.random(skill.shape) < _logistic(skill)).astype(np.float32)
        counts = image_counts(f"{run:x}", IMAGES, resamples=1000)
        found = estimate(per_draw(right, np.ones_like(right), counts), seed=run)
        held += found.low <= truth <= found.high
    return 100 * held / runs


def _logistic(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-values))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    print(f"draws alone: {draws_alone(args.runs, rng):.1f} %")
    with mock.patch.object(intervals, "widening", return_value=1.0):
        print(f"draws alone, plain bootstrap: {draws_alone(args.runs, rng):.1f} %")
    for spread in (0.05, 0.2, 0.5, 1.0):
        held = draws_and_images(args.runs, spread, rng)
        print(f"draws differ by {spread} logits, {IMAGES} images: {held:.1f} %", flush=True)


if __name__ == "__main__":
    main()
