"""Linear heads are fitted on other images, and are those of scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from refocus.probes.tools import linear


def _clusters(classes: int, each: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    centers = rng.normal(size=(classes, 6))
    return centers[labels] + spread * rng.normal(size=(len(labels), 6)), labels


def test_the_answers_are_those_of_cross_validation() -> None:
    features, labels = _clusters(4, 11, 0.8)
    folds, _ = linear._folds(labels, np.random.default_rng(3))
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    expected = cross_val_predict(head, features, labels, cv=PredefinedSplit(folds)) == labels
    found = linear.held_out(features, labels, seed=3)
    assert np.array_equal(found, expected.astype(float))
    assert 0.5 < found.mean() < 1


def test_folds_hold_each_class_alike_and_turns_number_its_images() -> None:
    labels = np.repeat([0, 1, 2], [10, 7, 3])
    folds, turns = linear._folds(labels, np.random.default_rng(0))
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
        assert sorted(turns[labels == label]) == list(range((labels == label).sum()))


def test_few_shots_know_less_and_noise_is_at_chance() -> None:
    features, labels = _clusters(5, 12, 1.0)
    one, every = (linear.held_out(features, labels, shots=n).mean() for n in (1, None))
    assert 0.2 < one < every
    plenty = linear.held_out(features, labels, shots=99)
    assert np.array_equal(plenty, linear.held_out(features, labels))
    noise = np.random.default_rng(1).normal(size=(100, 3))
    assert linear.held_out(noise, np.arange(100) % 5).mean() < 0.4


def test_an_image_that_is_alone_in_its_class_has_no_answer() -> None:
    features, labels = _clusters(3, 6, 0.1)
    found = linear.held_out(np.vstack([features, [[9.0] * 6]]), np.append(labels, 7))
    assert np.isnan(found).tolist() == [False] * 18 + [True]
    assert found[:18].mean() == 1
