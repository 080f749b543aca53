"""Which weights tuning may move: all, the last blocks, or a low-rank addition.

The addition (LoRA) is merged when it is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.vit.families import view
from refocus.vit.views import View, unsupported


def restrict(model: nn.Module, *, last_blocks: int | None = None, lora: int | None = None) -> None:
    """Freeze what may not move; without an option nothing is.

    Args:
        model: is changed in place.
        last_blocks: only this many of the last blocks, and all after them, stay trainable.
        lora: only low-rank additions of this rank to the linear layers of all blocks (Hu et al.,
            ICLR 2022) and the classifier. torchvision's attention has no such layers
            (nn.MultiheadAttention holds bare weights), so there the MLPs alone.

    Raises:
        InputError: more blocks than the model has, or peft is not installed.
    """
    if last_blocks is None and lora is None:
        return
    reader = view(model)
    if not isinstance(reader, View):
        raise unsupported(model, "‹last_blocks› and ‹lora› need to know its blocks and its head")
    if last_blocks is not None:
        if last_blocks > len(reader.blocks):
            raise InputError(
                f"‹last_blocks› {last_blocks}: the model has {len(reader.blocks)} blocks"
            )
        _freeze_before(model, reader.blocks[-last_blocks])
    if lora is not None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise InputError(
                "‹lora›: needs peft; install it with pip install 'refocus-vit[lora]'"
            ) from error
        inside = {id(module) for block in reader.blocks for module in block.modules()}
        layers = [
            name
            for name, module in model.named_modules()
            if type(module) is nn.Linear and id(module) in inside
        ]
        after = _names_after(model, reader.blocks[-1])
        inject_adapter_in_model(LoraConfig(r=lora, lora_alpha=lora, target_modules=layers), model)
        _call_projections(reader.blocks)
        for name, weight in model.named_parameters():
            if name in after:
                weight.requires_grad_(True)


def _call_projections(blocks: list[nn.Module]) -> None:
    """Have timm's BEiT and EVA call the layer of query, key and value, and add its bias after.

    Without that they pass its weight to `F.linear`, past what was added to the layer.
    """
    module: Any
    for module in (each for block in blocks for each in block.modules()):
        if hasattr(module, "qkv_bias_separate") and getattr(module, "q_bias", None) is not None:
            module.qkv_bias_separate = True


def _freeze_before(model: nn.Module, block: nn.Module) -> None:
    """Freeze what an image passes before this.

    Weights are registered in that order: embeddings, blocks, norm, pooling, classifier.
    """
    first = next(block.parameters())
    free = False
    for weight in model.parameters():
        free = free or weight is first
        weight.requires_grad_(free)


def _names_after(model: nn.Module, block: nn.Module) -> set[str]:
    inside, names, passed = {id(weight) for weight in block.parameters()}, set(), False
    for name, weight in model.named_parameters():
        if id(weight) in inside:
            passed = True
        elif passed:
            names.add(name)
    return names


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the names of the plain architecture, on the CPU.

    Low-rank additions are merged.
    """
    state = {
        name.replace(".base_layer.", "."): value.detach().cpu().clone()
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    with torch.no_grad():
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight"):
                state[f"{name}.weight"] += module.get_delta_weight("default").cpu()
    return state
