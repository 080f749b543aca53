"""Adversarial attacks on pixels in [0, 1], the model's normalization inside of what is attacked.

Axes: pixels `[B, 3, H, W]` in [0, 1], labels `[B]`. Budgets are largest changes of a pixel (L-inf).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from refocus.probes.tools.perturbations import generator
from refocus.relevance.gae import frozen

STEPS = 10  # of PGD
PATCH_STEPS = 20
# a step is 2.5 budget / steps, so that PGD can cross its ball (Madry et al., ICLR 2018, appendix)
_STEP = 2.5

Logits = Callable[[Tensor], Tensor]


def fgsm(model: nn.Module, logits: Logits, pixels: Tensor, labels: Tensor, budget: float) -> Tensor:
    """One step along the sign of the loss's gradient (Goodfellow et al., ICLR 2015).

    logits: pixels -> logits of `model`.
    """
    with frozen(model):
        _, direction = _ascent(logits, pixels, labels)
    return (pixels + budget * direction).clamp(0, 1)


def pgd(
    model: nn.Module,
    logits: Logits,
    pixels: Tensor,
    labels: Tensor,
    budget: float,
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    where: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Projected gradient descent from a random start (Madry et al., ICLR 2018).

    Args:
        model: whose weights are left alone meanwhile.
        logits: its answer to pixels in [0, 1].
        pixels: `[B, 3, H, W]` in [0, 1].
        labels: `[B]`, the true classes.
        budget: largest change of a pixel.
        seeds: of the random start, one for each image.
        steps: signed steps.
        where: `[B, 1, H, W]`, 1 where pixels may change; there the budget is all that is possible
            (a patch attack). None: everywhere, within the budget.

    Returns:
        The attacked pixels, and the loss of each image before each step and after the last, `[B,
        steps + 1]`.
    """
    reach = budget if where is None else 1.0
    inside = torch.ones_like(pixels[:, :1]) if where is None else where
    changed, losses = _start(pixels, reach, seeds, where), []
    with frozen(model):
        for _ in range(steps):
            loss, direction = _ascent(logits, changed, labels)
            losses.append(loss)
            moved = changed + _STEP / steps * reach * direction
            moved = pixels + (moved - pixels).clamp(-reach, reach)
            changed = (pixels * (1 - inside) + moved * inside).clamp(0, 1)
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(logits(changed), labels, reduction="none"))
    return changed, torch.stack(losses, dim=1).cpu()


def _ascent(logits: Logits, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each image `[B]`, and the sign of its gradient `[B, 3, H, W]`."""
    pixels = pixels.detach().requires_grad_()
    loss = nn.functional.cross_entropy(logits(pixels), labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), pixels)
    return loss.detach(), gradient.sign()


def _start(pixels: Tensor, reach: float, seeds: Sequence[int], where: Tensor | None) -> Tensor:
    """A random point of the ball around each image; in a patch any colours."""
    drawn = [torch.rand(pixels.shape[1:], generator=generator(seed)) for seed in seeds]
    noise = torch.stack(drawn).to(pixels)
    if where is not None:
        return pixels * (1 - where) + noise * where
    return (pixels + reach * (2 * noise - 1)).clamp(0, 1)
