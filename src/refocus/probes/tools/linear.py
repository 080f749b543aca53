"""Linear heads on features, each judged on images that it was not fitted on.

Axes: n images, D features.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5


def held_out(
    features: np.ndarray, labels: np.ndarray, *, shots: int | None = None, seed: int = 0
) -> np.ndarray:
    """1 where a linear head finds the label of an image, else 0: `[n]`.

    Multinomial logistic regression on standardized features, fitted on other images, in 5 folds
    that hold each class alike. NaN where the class has no other image.

    Args:
        features: `[n, D]`.
        labels: `[n]`.
        shots: images of each class that a head is fitted on; all without it, and where there are
            fewer.
        seed: of the folds, and of the images that are fitted on.
    """
    folds, turns = _folds(labels, np.random.default_rng(seed))
    right = np.full(len(labels), np.nan)
    for fold in range(FOLDS):
        test = folds == fold
        train = np.flatnonzero(~test)
        if shots is not None:
            train = _first(train, labels, turns, shots)
        known = np.unique(labels[train])
        asked = np.flatnonzero(test & np.isin(labels, known))
        if len(asked):
            found = _answers(features[train], labels[train], features[asked])
            right[asked] = found == labels[asked]
    return right


def _answers(features: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Labels that a head fitted on `features` gives to `asked`; one class has no head."""
    if len(np.unique(labels)) == 1:
        return np.full(len(asked), labels[0])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    found: np.ndarray = head.fit(features, labels).predict(asked)
    return found


def _folds(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The fold of each image, and its turn within its class, in random order."""
    turns, folds = np.zeros(len(labels), dtype=int), np.zeros(len(labels), dtype=int)
    dealt = 0  # so that classes with few images do not all lack the same folds
    for label in np.unique(labels):
        at = rng.permutation(np.flatnonzero(labels == label))
        turns[at] = np.arange(len(at))
        folds[at] = (dealt + np.arange(len(at))) % FOLDS
        dealt += len(at)
    return folds, turns


def _first(train: np.ndarray, labels: np.ndarray, turns: np.ndarray, shots: int) -> np.ndarray:
    """Of these images the first of each class, by their turns."""
    ordered = train[np.argsort(turns[train], kind="stable")]
    kept = [ordered[labels[ordered] == label][:shots] for label in np.unique(labels[ordered])]
    return np.concatenate(kept) if kept else ordered
