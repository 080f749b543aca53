"""Adversarial attacks on pixels in [0, 1], the model's normalization inside of what is attacked.

The loops are foolbox's.

Axes: pixels `[B, 3, H, W]` in [0, 1], labels `[B]`. Budgets are largest changes of a pixel (L-inf).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.probes.tools.perturbations import generator
from refocus.relevance.gae import frozen

STEPS = 10  # of PGD
PATCH_STEPS = 20
# a step is 2.5 budget / steps, so that PGD can cross its ball (Madry et al., ICLR 2018, appendix)
_STEP = 2.5


def library() -> Any:
    """Foolbox, which is an extra."""
    try:
        import foolbox
    except ImportError as error:
        raise InputError(
            "‹kinds›: attacks need foolbox; install it with pip install 'refocus-vit[attacks]'"
        ) from error
    return foolbox


def _attacked(logits: Callable[[Tensor], Tensor], device: torch.device) -> Any:
    class Network(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return logits(pixels)

    return library().PyTorchModel(Network().eval(), bounds=(0, 1), device=device)


def fgsm(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    pixels: Tensor,
    labels: Tensor,
    budget: float,
) -> Tensor:
    """One step along the sign of the loss's gradient (Goodfellow et al., ICLR 2015).

    logits: pixels -> logits of `model`.
    """
    attack = library().attacks.LinfFastGradientAttack(random_start=False)
    with frozen(model):
        found: Tensor = attack(_attacked(logits, pixels.device), pixels, labels, epsilons=budget)[1]
    return found


def pgd(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
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
    losses: list[Tensor] = []
    attack = _descent(losses, seeds, where)(
        steps=steps, rel_stepsize=_STEP / steps, random_start=True
    )
    epsilon = budget if where is None else 1.0
    with frozen(model):
        changed = attack(_attacked(logits, pixels.device), pixels, labels, epsilons=epsilon)[1]
        with torch.no_grad():
            last = nn.functional.cross_entropy(logits(changed), labels, reduction="none")
    return changed, torch.stack([*losses, last.cpu()], dim=1)


def _descent(losses: list[Tensor], seeds: Sequence[int], where: Tensor | None) -> Any:
    """Foolbox's attack, which notes the losses, with a start for each image and a region."""

    class Descent(library().attacks.LinfProjectedGradientDescentAttack):  # type: ignore[misc]
        def get_loss_fn(self, network: Any, truth: Any) -> Callable[[Any], Any]:
            def loss_of(inputs: Any) -> Any:
                each = nn.functional.cross_entropy(network(inputs).raw, truth.raw, reduction="none")
                losses.append(each.detach().cpu())
                return type(inputs)(each.sum())

            return loss_of

        def get_random_start(self, start: Any, epsilon: float) -> Any:
            shape = start.raw.shape[1:]
            drawn = [torch.rand(shape, generator=generator(seed)) for seed in seeds]
            noise = torch.stack(drawn).to(start.raw)
            moved = (
                start.raw + epsilon * (2 * noise - 1)
                if where is None
                else start.raw * (1 - where) + noise * where
            )
            return type(start)(moved.clamp(0, 1))

        def project(self, x: Any, start: Any, epsilon: float) -> Any:
            if where is None:
                return super().project(x, start, epsilon)
            return type(x)(start.raw * (1 - where) + x.raw.clamp(0, 1) * where)

    return Descent
