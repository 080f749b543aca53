"""Take parts of a Vision Transformer out at test time, and put them back.

Bhojanapalli et al., ICCV 2021.

Nothing is cut: hooks hand a block's input on in its place, or zeros for a branch, in this thread
    alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refocus.relevance.switches import exclusive, mine
from refocus.vit.families import view
from refocus.vit.views import View, unsupported
from refocus.vit.wrappers import unwrap

_NAMES = {"attention": ("attn", "attention", "self_attn", "self_attention"), "mlp": ("mlp",)}
PARTS = ("block", *_NAMES)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks in their order.

    Raises:
        InputError: a model of the user's own, which does not say where its blocks are.
    """
    reader = view(model)
    if not isinstance(reader, View):
        raise unsupported(unwrap(model), "it does not say which modules its blocks are")
    return reader.blocks


@contextmanager
def without(model: nn.Module, part: str, numbers: Iterable[int]) -> Iterator[None]:
    """Within the `with`, these blocks lack a part.

    The whole `block`, its `attention` or its `mlp` branch (residual stays).

    Raises:
        InputError: blocks whose branches cannot be told apart.
    """
    every = blocks(model)
    with exclusive(model):
        handles = []
        try:
            for number in numbers:
                if part == "block":
                    handles.append(
                        every[number].register_forward_hook(mine(_identity), with_kwargs=True)
                    )
                else:
                    handles.append(
                        branch(model, every[number], part).register_forward_hook(mine(_zeros))
                    )
            yield
        finally:
            for handle in handles:
                handle.remove()


def branch(model: nn.Module, block: Any, part: str) -> nn.Module:
    """The module whose output is added to the residual stream.

    Raises:
        InputError: a block whose branches cannot be told apart.
    """
    kind = type(block).__name__
    name = next((name for name in _NAMES[part] if hasattr(block, name)), None)
    if name is None or "Post" in kind:  # a norm behind the branch would add its bias
        raise unsupported(unwrap(model), f"the {part} of its {kind} cannot be taken out alone")
    module: nn.Module = getattr(block, name)
    return module


def _identity(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    given = args[0] if args else next(iter(kwargs.values()))
    return (given, *output[1:]) if isinstance(output, tuple) else given


def _zeros(_branch: nn.Module, _args: Any, output: Any) -> Any:
    return (
        (torch.zeros_like(output[0]), *output[1:])
        if isinstance(output, tuple)
        else torch.zeros_like(output)
    )


def neighbours(grid: tuple[int, int], prefix: int, reach: int) -> Tensor:
    """Which tokens see which, bool `[N, N]`: patches those at most `reach` rows and columns away.

    Tokens before the patches see and are seen by all.
    """
    rows, columns = (
        x.flatten() for x in torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    )
    near = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()) <= reach
    allowed = torch.ones(prefix + len(rows), prefix + len(rows), dtype=torch.bool)
    allowed[prefix:, prefix:] = near
    return allowed
