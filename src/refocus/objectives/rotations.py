"""Rotation prediction (Gidaris et al., ICLR 2018): which of four turns does an image have?

It is read linearly from the features. As a probe it asks what the features know of shape; as an
auxiliary objective it was found to help robustness (Hendrycks et al., NeurIPS 2019). Features `[4
B, D]` are of the B images at 0, then at 90, 180 and 270 degrees.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from refocus.errors import InputError

TURNS = 4
_FOLDS = 5
_RIDGE = 1.0
_LEAST = 2  # images, so that a head can be fitted on others


def turned(images: Tensor) -> Tensor:
    """Square images `[B, 3, S, S]` at 0, 90, 180 and 270 degrees: `[4 B, 3, S, S]`.

    Raises:
        InputError: images that are not square, which would change their shape.
    """
    if images.shape[-2] != images.shape[-1]:
        raise InputError(
            f"rotation: the model's input is {images.shape[-2]} x {images.shape[-1]}; a turned "
            "image must be square"
        )
    return torch.cat([images.rot90(k, (2, 3)) for k in range(TURNS)])


def held_out(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each image the share of its four turns that a linear head finds, fitted on other images.

    Multinomial logistic regression, features standardized, in 5 folds that the seed draws: features
    `[n, 4, D]` -> `[n]`, NaN for a single image.
    """
    count = len(features)
    if count < _LEAST:
        return np.full(count, np.nan)
    flat, turns = features.reshape(count * TURNS, -1), np.tile(np.arange(TURNS), count)
    # `GroupKFold` deals groups by their number
    images = np.repeat(np.random.default_rng(seed).permutation(count), TURNS)
    right = np.zeros(count * TURNS)
    for train, test in GroupKFold(min(_FOLDS, count)).split(flat, turns, images):
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        right[test] = head.fit(flat[train], turns[train]).predict(flat[test]) == turns[test]
    shares: np.ndarray = right.reshape(count, TURNS).mean(1)
    return shares


def loss(features: Tensor) -> Tensor:
    """Cross-entropy of the four turns under the linear head that is best for the batch's others.

    A ridge regression in closed form, through which the gradient flows (as in Bertinetto et al.,
    ICLR 2019). Scalar; features `[4 B, D]`. A single image has no others: then ln 4 for any
    features.

    Deviation: Hendrycks et al. learn the head by steps of its own; in the few steps of a refocus
    run it would hardly leave its start.
    """
    count = len(features) // TURNS
    unit = F.normalize(F.layer_norm(features.float(), features.shape[1:]), dim=1)
    turns = torch.arange(TURNS, device=features.device).repeat_interleave(count)
    answers = F.one_hot(turns, TURNS).to(unit) - 1 / TURNS
    halves = (
        torch.arange(len(unit), device=features.device) % count % 2 == 0
    )  # whole images on either side
    logits = torch.zeros(len(unit), TURNS, device=features.device)
    for fitted in (halves, ~halves):
        known, asked = unit[fitted], unit[~fitted]
        kernel = known @ known.T + _RIDGE * torch.eye(len(known), device=unit.device) / TURNS
        logits[~fitted] = asked @ known.T @ torch.linalg.solve(kernel, answers[fitted])
    return F.cross_entropy(TURNS * logits, turns)
