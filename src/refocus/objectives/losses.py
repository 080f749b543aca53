"""The terms of the objectives, one equation each.

"The paper" is Chefer, Schwartz, Wolf, NeurIPS 2022. R: relevance in [0, 1] after min-max, `[B,
height, width]`. S: foreground mask in [0, 1], `[B, height, width]`. Each term is a scalar: the mean
over images and pixels, or over images.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from refocus.vit.inputs import check_outputs


def background(relevance: Tensor, mask: Tensor, outside: Tensor | None = None) -> Tensor:
    """Paper Eq. 1: MSE(R * (1 - S), 0).

    Deviation: the published code has `published_complement` for 1 - S; `outside` takes it.
    """
    return (relevance * (1 - mask if outside is None else outside)).square().mean()


def published_complement(mask: Tensor) -> Tensor:
    """What the published code takes for 1 - S: it exchanges 0 and 1 and leaves soft values.

    So a soft edge counts in the foreground and in the background.
    """
    return torch.where(mask == 0, 1.0, torch.where(mask == 1, 0.0, mask))


def foreground(relevance: Tensor, mask: Tensor) -> Tensor:
    """Paper Eq. 2 as published in code: MSE(R * S, S).

    As printed, MSE(R * S, 1) adds a constant for the background.
    """
    return (relevance * mask - mask).square().mean()


def confidence(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Paper Eq. 4: CE(M(i) / T, argmax M(i)); logits `[B, K]`.

    The model's own prediction at this step is taken as the label.
    """
    return F.cross_entropy(logits / temperature, logits.argmax(1))


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the true labels; logits `[B, K]`, labels `[B]`.

    Raises:
        InputError: labels that the logits do not have.
    """
    check_outputs("labels", labels, logits)
    return F.cross_entropy(logits, labels)


def seen_classification(logits: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
    """Cross-entropy among the classes `seen` alone; logits `[B, K]`, labels `[B]`.

    `seen` are class indices that hold every label.

    With few shots of half the classes, cross-entropy over all K teaches "it is never one of the
    others": their logits are only ever pushed down. Restricted to the classes tuned on, the others
    are left to what the model knows of them.

    Raises:
        InputError: labels or `seen` that the logits do not have.
    """
    check_outputs("seen", seen, logits)
    check_outputs("labels", labels, logits)
    position = (seen[None] == labels[:, None]).long().argmax(1)
    return F.cross_entropy(logits[:, seen], position)


def outside_energy(raw: Tensor, mask: Tensor) -> Tensor:
    """Mean over images of the share of relevance outside the mask: 1 - sum(R S) / sum(R).

    Source: Rao et al., ICCV 2023, Eq. 5.

    Args:
        raw: relevance >= 0 BEFORE min-max, `[B, height, width]`; an image without any relevance
            counts as all outside.
        mask: S.
    """
    total = raw.sum((1, 2))
    inside = (raw * mask).sum((1, 2))
    return (1 - inside / total.clamp(min=1e-12)).mean()


def binary_relevance(relevance: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of the relevance against the mask, as for segmentation.

    The relevance is read as the probability of foreground. Kept 1 % off 0 and 1, which every
    min-max map reaches and where the slope of the logarithm has no bound.
    """
    return F.binary_cross_entropy(relevance.clamp(0.01, 0.99), mask.to(relevance.dtype))


def gradmask(gradient: Tensor, mask: Tensor) -> Tensor:
    """Paper Eq. 9 (GradMask, Simpson et al. 2019): L2 norm of the input gradient outside the mask.

    The mean over images.

    Args:
        gradient: of the true class's logit, `[B, 3, H, W]`.
        mask: S as `[B, 1, H, W]`.
    """
    norms: Tensor = (gradient * (1 - mask)).flatten(1).norm(dim=1)
    return norms.mean()


def right_reasons(gradient: Tensor, mask: Tensor) -> Tensor:
    """Paper Eq. 10 (RRR, Ross et al., IJCAI 2017): squared input gradient outside the mask.

    Summed over pixels, the mean over images.

    Args:
        gradient: of the sum over classes of log p_k, `[B, 3, H, W]`.
        mask: S as `[B, 1, H, W]`.
    """
    return (gradient * (1 - mask)).square().sum((1, 2, 3)).mean()


def distance_to_teacher(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || model) over all classes, mean over images; logits of both `[B, K]`.

    Source: Hinton et al. 2015, temperature 1.
    """
    return F.kl_div(
        logits.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
    )


def distance_to_start(weights: Iterable[Tensor], start: Iterable[Tensor]) -> Tensor:
    """L2-SP: half the squared distance to the starting weights.

    Source: Li, Grandvalet, Davoine, ICML 2018, Eq. 2 with alpha = 1.
    """
    distances = [(now - before).square().sum() for now, before in zip(weights, start, strict=True)]
    return torch.stack(distances).sum() / 2
