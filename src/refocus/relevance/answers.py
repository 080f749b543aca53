"""What one forward pass answers, and the features that the answer is read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from refocus.errors import InputError
from refocus.relevance.switches import mine
from refocus.vit.families import view
from refocus.vit.inputs import fitting, shown
from refocus.vit.precision import autocast, in_bfloat16
from refocus.vit.views import View, two_tokens, unsupported
from refocus.vit.wrappers import runnable, unwrap

_TWO = 2  # axes of logits


class _Watch(TorchFunctionMode):
    """Keeps what the last `heads` linear layers of a pass are given, and what they return.

    An adapter of PEFT around a linear layer is one layer, whatever it calls inside.
    """

    def __init__(self, model: nn.Module, heads: int) -> None:
        super().__init__()
        self.heads, self.inside = heads, 0
        self.adapted = [layer for layer in model.modules() if _is_adapted(layer)]
        self.handles: list[RemovableHandle] = []
        self.seen: list[Tensor] = []
        self.made: list[Tensor] = []

    def __enter__(self) -> _Watch:
        for layer in self.adapted:
            self.handles += [
                layer.register_forward_pre_hook(mine(self._enter)),
                layer.register_forward_hook(mine(self._leave)),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self.handles:
            handle.remove()

    def _enter(self, *_: object) -> None:
        self.inside += 1

    def _leave(self, _layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.inside -= 1
        self._keep(args[0], output)

    def _keep(self, given: Tensor, made: Tensor) -> None:
        if not self.inside:
            self.seen = [*self.seen, given][-self.heads :]
            self.made = [*self.made, made][-self.heads :]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is F.linear:
            self._keep(args[0], found)
        return found


def _is_adapted(layer: nn.Module) -> bool:
    """Whether this is an adapter of PEFT around a linear layer."""
    adapter: Any = layer
    return hasattr(layer, "get_base_layer") and isinstance(adapter.get_base_layer(), nn.Linear)


def last_linear_input(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]`, and the features `[B, D]` that the classifier reads.

    These are what the last linear layer of the pass is given, or with two heads the last two, side
    by side.

    Raises:
        InputError: a model without a linear layer.
    """
    with _Watch(model, 2 if has_second_token(model) else 1) as watch:
        logits = logits_of(model, images)
    if not watch.seen:
        raise unsupported(unwrap(model), "no linear layer reads its features")
    return logits, torch.cat(watch.seen, dim=-1)


def has_second_token(model: nn.Module) -> bool:
    """Whether two heads answer, on the class token and on a second (distillation) token."""
    reader = view(model)
    return isinstance(reader, View) and reader.readout is two_tokens


def second_answer(model: nn.Module, images: Tensor) -> Tensor:
    """What the head on the second token answers, logits `[B, K]`.

    Raises:
        InputError: a model without a second token.
    """
    if not has_second_token(model):
        raise unsupported(unwrap(model), "it has no second token; distilled DeiTs have one")
    with _Watch(model, 1) as watch:
        logits_of(model, images)
    answer: Tensor = watch.made[-1]
    return answer


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """One forward pass -> logits `[B, K]`; transformers' models wrap theirs in a record.

    In the number format of `refocus.vit.precision.computing`; the answer is float32 then.

    Raises:
        InputError: a model that does not take images of this size, or that returns no logits.
    """
    with fitting(images), autocast(images.device):
        output = runnable(model)(images)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != _TWO:
        raise InputError(
            f"{type(unwrap(model)).__name__}: a pass returns {shown(output)}; must be logits "
            "[B, K], a tensor or a record that has them as .logits"
        )
    return logits.float() if in_bfloat16() else logits


def usable_logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits float32 `[B, K]` on the CPU, of pixels that the library read itself.

    They take the device and the number format of the weights; a caller's own autocast does that.

    Raises:
        InputError: answers that are no numbers.
    """
    weight = next(model.parameters())
    pixels = pixels.to(weight.device)
    floating = (w.dtype for w in model.parameters() if w.is_floating_point())
    if not torch.is_autocast_enabled(pixels.device.type):
        pixels = pixels.to(next(floating, pixels.dtype))
    logits = logits_of(model, pixels).float().cpu()
    if not logits.softmax(1).isfinite().all():  # single outputs of -inf are legal
        raise InputError(
            f"model: its answers are no numbers (NaN or infinite) for {len(pixels)} images; its "
            "weights may be unfinished, or too large for their number format (half, say)"
        )
    return logits
