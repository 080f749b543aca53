"""What a relevance map is of, a score of the logits, and the gradients that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.vit.inputs import check_outputs

Target = (
    Tensor | Callable[[Tensor], Tensor] | None
)  # class indices `[B]`; logits -> score per image; the predicted class


def score(logits: Tensor, targets: Target) -> Tensor:
    """What the relevance explains, summed over images: logits `[B, K]` -> scalar.

    Raises:
        InputError: classes that the logits do not have, or no score for each image.
    """
    if callable(targets):
        scores = targets(logits)
        if not isinstance(scores, Tensor) or scores.shape != logits.shape[:1]:
            found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(
                f"targets: the function returned {found}; must be one score for each of "
                f"{len(logits)} images"
            )
        return scores.sum()
    chosen = logits.argmax(1) if targets is None else targets
    check_outputs("labels or targets", chosen, logits)
    return logits.gather(1, chosen[:, None]).sum()


def slopes(
    answer: Tensor, by: Sequence[Tensor], *, within_graph: bool = False, keep: bool = True
) -> Sequence[Tensor | None]:
    """Gradient of a scalar by each tensor; None where the scalar does not depend on it.

    Args:
        answer: the scalar.
        by: nodes of its graph.
        within_graph: whether the gradients are to be differentiated again.
        keep: whether the graph is needed afterwards.

    Raises:
        InputError: there is no graph.
    """
    if not answer.requires_grad:
        raise InputError(
            "targets: the score is detached from the logits, so it has no gradient to explain"
            if torch.is_grad_enabled()
            else "gradients are off here, and relevance is made of them; call it outside of "
            "torch.no_grad() and torch.inference_mode()"
        )
    found: Sequence[Tensor | None] = torch.autograd.grad(
        answer, by, create_graph=within_graph, retain_graph=keep, allow_unused=True
    )
    return found


def refuse_untrained(
    model: nn.Module, nodes: Sequence[Tensor], made: Sequence[Tensor], *, by_gradient: bool = False
) -> None:
    """Stop where a loss on a map would reach no weight, although its backward pass would run.

    Args:
        model: that is trained.
        nodes: what the map is made of.
        made: tensors of which the recording makes leaves that need a gradient, where nothing before
            them does.
        by_gradient: the map reaches the weights after these nodes as well, through its gradient.

    Raises:
        InputError: says so.
    """
    leaves = {id(tensor) for tensor in made if tensor.is_leaf}
    if not torch.is_grad_enabled() or not leaves or _reach_another(nodes, leaves):
        return
    if by_gradient and any(weight.requires_grad for weight in model.parameters()):
        return
    raise InputError(
        "map: all that it depends on is frozen, so a loss on it trains nothing; unfreeze a block, "
        "or train with an objective without a map, such as finetune"
    )


def _reach_another(nodes: Sequence[Tensor], leaves: set[int]) -> bool:
    """Whether the graph of some node has a leaf besides these, by identity."""
    if any(x.requires_grad and x.is_leaf and id(x) not in leaves for x in nodes):
        return True
    seen: set[Any] = set()
    ahead: list[Any] = [x.grad_fn for x in nodes if x.grad_fn is not None]
    while ahead:  # from the last node on, whose weights are the likeliest to be trained
        step = ahead.pop()
        if step in seen:
            continue
        seen.add(step)
        variable = getattr(step, "variable", None)  # of a leaf
        if variable is not None and id(variable) not in leaves:
            return True
        ahead += [before for before, _ in step.next_functions if before is not None]
    return False
