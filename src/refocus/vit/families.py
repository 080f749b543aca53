"""Which Vision Transformers are supported, one row a family, and how each is read.

The rows are what `refocus models` prints.

A family is a function that makes a `View` of a model of its library; a user's own module may simply
have what that takes, the protocol `Readable` (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from refocus.vit.views import (
    Readable,
    View,
    class_and_mean,
    class_token,
    mean_from,
    two_tokens,
    unsupported,
)
from refocus.vit.wrappers import unwrap


@dataclass(frozen=True)
class Family:
    """A row of the table.

    classes: names of the library's classes. view: reads a model, or refuses it with the reason.
    """

    library: str
    classes: tuple[str, ...]
    view: Callable[[Any], View]
    about: str
    examples: tuple[str, ...] = field(default=())


# --- timm ---------------------------------------------------------------------------------------

_TIMM_ATTENTION = (
    "Attention",
    "AttentionRope",
    "EvaAttention",
)  # the softmax of q k^T, alone or with a bias


def _timm_view(model: Any, readout: Callable[[int], Tensor]) -> View:
    branches = 1
    for block in model.blocks:
        layers = (
            [b.attn for b in block.attns]
            if hasattr(block, "attns")
            else [getattr(block, "attn", block)]
        )
        branches = len(layers)
        for layer in layers:  # a relative may form its map elsewhere (differential attention does)
            if type(layer).__name__ not in (*_TIMM_ATTENTION, "ParallelScalingBlock"):
                raise unsupported(
                    model,
                    f"its blocks have {type(layer).__name__}, whose attention map is not supported",
                )
    prefix: int = model.num_prefix_tokens
    return View(
        prefix,
        lambda h, w: model.patch_embed.dynamic_feat_size((h, w)),
        readout,
        list(model.blocks),
        branches,
        tuple(model.patch_embed.feat_ratio(as_scalar=False)),
    )


def _timm_vit(model: Any) -> View:
    """Also Eva and BEiT, which name their parts alike.

    Attention pooling reads through a last map of its own, of one row.
    """
    if getattr(model, "attn_pool", None) is not None:
        if (
            type(model.attn_pool).__name__ != "AttentionPoolLatent"
            or model.attn_pool.latent_len != 1
        ):
            raise unsupported(
                model,
                f"its pooling {type(model.attn_pool).__name__} has no single query to start from",
            )
        return _timm_view(model, class_token)
    if model.global_pool == "token":
        return _timm_view(model, class_token)
    if model.global_pool == "avg":
        return _timm_view(
            model,
            mean_from(
                0 if getattr(model, "pool_include_prefix", False) else model.num_prefix_tokens
            ),
        )
    raise unsupported(
        model, f"pooling {model.global_pool!r} is not supported; choose one of token, avg, map"
    )


def _timm_distilled(model: Any) -> View:
    if getattr(model, "distilled_training", False):
        raise unsupported(
            model,
            "in distilled training it answers twice; call model.set_distilled_training(False)",
        )
    return _timm_view(model, two_tokens)


# --- transformers -------------------------------------------------------------------------------


def _transformers_view(
    model: Any, config: Any, prefix: int, readout: Callable[[int], Tensor]
) -> View:
    """The encoder is the one list of layers that all these towers have."""
    layers = next(
        list(m)
        for m in model.modules()
        if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers
    )
    sides = (
        tuple(config.patch_size)
        if isinstance(config.patch_size, list | tuple)
        else (config.patch_size, config.patch_size)
    )
    return View(prefix, lambda h, w: (h // sides[0], w // sides[1]), readout, layers, patch=sides)


def _hf_class_token(model: Any) -> View:
    """ViTForImageClassification, and DeiT's, which has a distillation token that nobody reads."""
    return _transformers_view(
        model, model.config, 2 if type(model).__name__.startswith("DeiT") else 1, class_token
    )


def _hf_distilled(model: Any) -> View:
    return _transformers_view(model, model.config, 2, two_tokens)


def _hf_dinov2(model: Any) -> View:
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    return _transformers_view(model, model.config, prefix, class_and_mean(prefix))


def _hf_beit(model: Any) -> View:
    return _transformers_view(
        model, model.config, 1, mean_from(1) if model.config.use_mean_pooling else class_token
    )


def _hf_clip(model: Any) -> View:
    return _transformers_view(model, model.config.vision_config, 1, mean_from(1))


def _hf_siglip(model: Any) -> View:
    return _transformers_view(model, model.config.vision_config, 0, mean_from(0))


def _zero_shot(model: Any) -> View:
    """CLIP reads its class token; SigLIP pools by attention, through a last map of one row."""
    prefix = 0 if "Siglip" in type(model.tower).__name__ else 1
    return _transformers_view(model.tower, model.tower.config, prefix, class_token)


# --- torchvision --------------------------------------------------------------------------------


def _torchvision(model: Any) -> View:
    side = model.patch_size
    layers = list(model.encoder.layers)
    return View(1, lambda h, w: (h // side, w // side), class_token, layers, patch=(side, side))


# --- the table ----------------------------------------------------------------------------------

FAMILIES = {
    "ViT": Family(
        "timm",
        ("VisionTransformer",),
        _timm_vit,
        "ViT, AugReg, DeiT, DeiT-III, DINO, DINOv2 (registers too), CLIP and SigLIP towers with a "
        "head; class token, mean or "
        "attention pooling; layer scale, qk-norm, parallel blocks; any patch and input size",
        (
            "vit_small_patch16_224.augreg_in21k_ft_in1k",
            "deit_base_patch16_224.fb_in1k",
            "vit_base_patch14_reg4_dinov2.lvd142m",
        ),
    ),
    "distilled DeiT": Family(
        "timm",
        ("VisionTransformerDistilled",),
        _timm_distilled,
        "two heads on two tokens; their mean is explained",
        ("deit_small_distilled_patch16_224.fb_in1k",),
    ),
    "EVA": Family(
        "timm",
        ("Eva",),
        _timm_vit,
        "EVA, EVA-02, DINOv3, Perception Encoder: rotary embeddings",
        ("eva02_small_patch14_336.mim_in22k_ft_in1k", "vit_small_patch16_dinov3.lvd1689m"),
    ),
    "BEiT": Family(
        "timm",
        ("Beit",),
        _timm_vit,
        "BEiT, BEiTv2: relative position bias",
        ("beitv2_base_patch16_224.in1k_ft_in22k_in1k",),
    ),
    "ViT (transformers)": Family(
        "transformers",
        ("ViTForImageClassification", "DeiTForImageClassification"),
        _hf_class_token,
        "class token",
        ("hf:google/vit-base-patch16-224",),
    ),
    "distilled DeiT (transformers)": Family(
        "transformers",
        ("DeiTForImageClassificationWithTeacher",),
        _hf_distilled,
        "two heads on two tokens; their mean is explained",
        ("hf:facebook/deit-base-distilled-patch16-224",),
    ),
    "DINOv2 (transformers)": Family(
        "transformers",
        ("Dinov2ForImageClassification", "Dinov2WithRegistersForImageClassification"),
        _hf_dinov2,
        "with and without registers; class token beside the mean of the patches",
        ("hf:facebook/dinov2-small-imagenet1k-1-layer",),
    ),
    "BEiT (transformers)": Family(
        "transformers",
        ("BeitForImageClassification",),
        _hf_beit,
        "relative position bias; mean of the patches or class token",
        ("hf:microsoft/beit-base-patch16-224",),
    ),
    "CLIP (transformers)": Family(
        "transformers",
        ("CLIPForImageClassification",),
        _hf_clip,
        "image tower with a trained head: mean of the patches",
        (),
    ),
    "SigLIP (transformers)": Family(
        "transformers",
        ("SiglipForImageClassification",),
        _hf_siglip,
        "image tower with a trained head: mean of the patches",
        (),
    ),
    "zero-shot CLIP, SigLIP": Family(
        "transformers",
        ("ZeroShot",),
        _zero_shot,
        "image tower with a head from class names: `refocus zero-shot`",
        ("hf:openai/clip-vit-base-patch32", "hf:google/siglip-base-patch16-224"),
    ),
    "ViT (torchvision)": Family(
        "torchvision",
        ("VisionTransformer",),
        _torchvision,
        "vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14: class token",
        ("torchvision:vit_b_16",),
    ),
}

# library, a class name's beginning -> why it cannot work: relevance follows the attention from one
# readout row to all patches
REFUSED = {
    "Swin": "windowed attention",
    "MaxxVit": "windowed attention and convolutions",
    "MaxVit": "windowed attention and convolutions",
    "MultiScaleVit": "pooled attention on changing grids",
    "Hiera": "pooled attention on changing grids",
    "ConvNe": "convolutions, no attention",
    "ResNet": "convolutions, no attention",
    "Xcit": "attention over channels, not over patches",
    "Cait": "attention that mixes its heads before and after the softmax",
}


def family(model: nn.Module) -> tuple[str, Family] | None:
    """The row for a model's exact class; a subclass may read its tokens otherwise."""
    kind = type(unwrap(model))
    library = kind.__module__.split(".")[0]
    for name, row in FAMILIES.items():
        if kind.__name__ in row.classes and library in (row.library, "refocus"):
            return name, row
    return None


def view(model: nn.Module) -> View | Readable:
    """How to read this model.

    Raises:
        InputError: no family fits; says why and what to use instead.
    """
    inner = unwrap(model)
    if found := family(inner):
        return found[1].view(inner)
    if isinstance(inner, Readable):
        return inner
    name = type(inner).__name__
    reason = next((why for start, why in REFUSED.items() if name.startswith(start)), None)
    raise unsupported(
        inner,
        f"{reason}, so no global attention map leads from its answer to all patches"
        if reason
        else "not a family that is supported",
    )


def covered_pixels(model: nn.Module, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of pixels, from the top left, that the patches of an input cover.

    A patch embedding leaves out what fills no patch: with patches of 14 the last 6 of 384 pixels.
    One that pads covers more than the input. A module of one's own covers all of its input unless
    it says its `patch` (docs/extending.md).

    size: of the input, (height, width).
    """
    reader, (height, width) = view(model), size
    patch: Sequence[int] | None = getattr(reader, "patch", None)
    if patch is None:
        return height, width
    rows, columns = reader.grid(height, width)
    return rows * patch[0], columns * patch[1]
