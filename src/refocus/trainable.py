"""Which weights tuning may move: all of them, the last blocks, or a low-rank addition (LoRA) that is merged when it is saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refocus.attention import vision_transformer
from refocus.errors import InputError

LORA_LAYERS = r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"  # not the patch embedding, which has a `proj` too


def restrict(model: nn.Module, *, last_blocks: int | None = None, lora: int | None = None) -> None:
    """Freeze what may not move; without an option nothing is.

    Args:
        last_blocks: only the last so many blocks, what follows them and the classifier stay free.
        lora: only low-rank additions of this rank to the linear layers of all blocks (Hu et al., ICLR 2022) and the classifier.

    Raises:
        InputError: more blocks than the model has, or peft is not installed.
    """
    vit = vision_transformer(model)
    if last_blocks is not None:
        if last_blocks > len(vit.blocks):
            raise InputError(f"--last-blocks {last_blocks}: the model has {len(vit.blocks)} blocks")
        vit.requires_grad_(False)
        for part in (*vit.blocks[-last_blocks:], vit.norm, vit.fc_norm, vit.head):
            part.requires_grad_(True)
    if lora is not None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise InputError("--lora: needs peft; install it with pip install 'refocus-vit[lora]'") from error
        inject_adapter_in_model(LoraConfig(r=lora, lora_alpha=lora, target_modules=LORA_LAYERS), vit)
        vit.head.requires_grad_(True)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the names of the plain architecture, low-rank additions merged; on the CPU."""
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
