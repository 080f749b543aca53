"""What passes through the blocks of a Vision Transformer: the token that is read, and MLP units.

Axes: B images, L blocks, N tokens, D features, U units of an MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refocus.probes.tools.surgery import blocks, branch
from refocus.relevance.answers import logits_of
from refocus.relevance.switches import exclusive, mine
from refocus.vit.families import view
from refocus.vit.views import class_token, unsupported
from refocus.vit.wrappers import unwrap


def block_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """What the classifier would read, behind each block: `[B, L, D]`.

    The class token, the mean of two, or the mean of the tokens that it averages. A pooling query
    without a class token reads no single token; there it is the mean of all.

    Raises:
        InputError: a model that does not say where its blocks are.
    """
    found: list[Tensor] = []

    def keep(_block: nn.Module, _args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    with _watched(model, [(block, keep) for block in blocks(model)]):
        logits_of(model, images)
    row = _row(model, found[0].shape[1]).to(found[0])
    return torch.stack([torch.einsum("n,bnd->bd", row, tokens) for tokens in found], dim=1)


def _row(model: nn.Module, tokens: int) -> Tensor:
    """How the classifier reads the tokens, weights `[N]`."""
    reader = view(model)
    if reader.prefix == 0 and reader.readout is class_token:
        return torch.full((tokens,), 1 / tokens)
    return reader.readout(tokens)


def mlp_units(model: nn.Module, images: Tensor, number: int) -> Tensor:
    """The strongest activation of each unit of a block's MLP over all tokens: `[B, U]`.

    A unit is what the MLP's last linear layer reads. number: of the block, from 0.

    Raises:
        InputError: a block whose MLP cannot be told apart.
    """
    seen: list[Tensor] = []

    def keep(_layer: nn.Module, args: Any) -> None:
        seen.append(args[0])

    with _watched(model, [(last_layer(model, number), keep)], before=True):
        logits_of(model, images)
    return seen[0].amax(1)


def last_layer(model: nn.Module, number: int) -> nn.Module:
    """The last linear layer of a block's MLP.

    Raises:
        InputError: a block whose MLP cannot be told apart.
    """
    block = blocks(model)[number]
    layers = [m for m in branch(model, block, "mlp").modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise unsupported(unwrap(model), f"the MLP of its {type(block).__name__} is not linear")
    return layers[-1]


@contextmanager
def _watched(
    model: nn.Module, hooks: list[tuple[nn.Module, Callable[..., None]]], *, before: bool = False
) -> Iterator[None]:
    with exclusive(model), torch.no_grad():
        handles = [
            module.register_forward_pre_hook(mine(hook))
            if before
            else module.register_forward_hook(mine(hook))
            for module, hook in hooks
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
