"""A tiny model of random weights for every family and variant, made offline by its own library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from tests.makers import NAMES

_SIZES = {"embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 4}


def from_timm(name: str, **changes: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        args = {"img_size": 32, "patch_size": 8, **_SIZES, **changes}
        side = args["img_size"]
        size = (3, side, side) if isinstance(side, int) else (3, *side)
        return timm.create_model(
            name,
            pretrained_cfg_overlay={"input_size": size, "crop_pct": 1.0, "label_names": NAMES},
            **args,
        ).eval()

    return build


def from_transformers(kind: str, config: str, **changes: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        sizes = {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 48,
        }
        vision = {**sizes, "image_size": 32, "patch_size": 8, **changes}
        labels = {
            "id2label": dict(enumerate(NAMES)),
            "label2id": {name: i for i, name in enumerate(NAMES)},
        }
        maker = getattr(transformers, config)
        made = (
            maker(vision_config=vision, **labels)
            if config in ("CLIPConfig", "SiglipConfig")
            else maker(**vision, **labels)
        )
        made.architectures = [kind]
        model = getattr(transformers, kind)(made).eval()
        return with_processor(model)

    return build


def with_processor(model: Any) -> Any:
    from transformers import ViTImageProcessor

    from refocus.vit.transformers_models import described

    processor = ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return described(model, processor, NAMES, len(NAMES))


def zero_shot(kind: str, config: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        from refocus.vit.zero_shot import ZeroShot

        sizes = {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 48,
        }
        made = getattr(transformers, config)(
            **sizes, image_size=32, patch_size=8, projection_dim=12
        )
        tower = getattr(transformers, kind)(made)
        embeddings = nn.functional.normalize(torch.randn(4, 12 if "CLIP" in kind else 24), dim=-1)
        return with_processor(ZeroShot(tower, embeddings, 10.0, 0.0).eval())

    return build


def from_torchvision() -> nn.Module:
    model: Any = VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=3,
        hidden_dim=24,
        mlp_dim=48,
        num_classes=4,
    )
    model.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "crop_pct": 1.0,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "label_names": NAMES,
    }
    return model.eval()


_EVA = {"mlp_ratio": 2.0}
ZOO: dict[str, dict[str, Callable[[], nn.Module]]] = {  # family -> variant -> model
    "ViT": {
        "class token": from_timm("vit_tiny_patch16_224"),
        "AugReg": from_timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        "DeiT": from_timm("deit_tiny_patch16_224"),
        "DeiT-III, layer scale": from_timm("deit3_small_patch16_224"),
        "DINOv2": from_timm("vit_small_patch14_dinov2"),
        "DINOv2, registers": from_timm("vit_small_patch14_reg4_dinov2"),
        "mean of patches": from_timm("vit_tiny_patch16_224", global_pool="avg"),
        "no prefix": from_timm("vit_tiny_patch16_224", class_token=False, global_pool="avg"),
        "mean of all tokens": from_timm(
            "vit_tiny_patch16_224", global_pool="avg", pool_include_prefix=True
        ),
        "attention pooling": from_timm("vit_base_patch16_siglip_224"),
        "attention pooling, class token": from_timm("vit_tiny_patch16_224", global_pool="map"),
        "attention pooling, registers": from_timm(
            "vit_tiny_patch16_224", global_pool="map", reg_tokens=2
        ),
        "layer scale, qk-norm": from_timm("vit_tiny_patch16_224", init_values=0.5, qk_norm=True),
        "parallel attention and MLP": from_timm("vit_pwee_patch16_reg1_gap_256"),
        "two blocks side by side": from_timm("vit_small_patch16_18x2_224"),
        "patch 4": from_timm("vit_tiny_patch16_224", patch_size=4, img_size=16),
        "patch 14": from_timm("vit_tiny_patch16_224", patch_size=14, img_size=42),
        "patch 16": from_timm("vit_tiny_patch16_224", patch_size=16, img_size=48),
        "patch 32": from_timm("vit_tiny_patch16_224", patch_size=32, img_size=96),
        "non-square": from_timm("vit_tiny_patch16_224", img_size=(16, 40)),
        "CLIP tower": from_timm("vit_base_patch32_clip_224"),
    },
    "distilled DeiT": {"": from_timm("deit_tiny_distilled_patch16_224")},
    "EVA": {
        "EVA": from_timm("eva_giant_patch14_224", **_EVA),
        "EVA-02": from_timm("eva02_tiny_patch14_224"),
        "DINOv3": from_timm("vit_small_patch16_dinov3"),
        "Perception Encoder": from_timm("vit_pe_core_tiny_patch16_384", attn_pool_num_heads=3),
    },
    "BEiT": {
        "bias of each block": from_timm("beit_base_patch16_224"),
        "shared bias": from_timm(
            "beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True
        ),
        "class token": from_timm("beit_base_patch16_224", global_pool="token"),
    },
    "ViT (transformers)": {
        "ViT": from_transformers("ViTForImageClassification", "ViTConfig"),
        "DeiT": from_transformers("DeiTForImageClassification", "DeiTConfig"),
    },
    "distilled DeiT (transformers)": {
        "": from_transformers("DeiTForImageClassificationWithTeacher", "DeiTConfig")
    },
    "DINOv2 (transformers)": {
        "plain": from_transformers("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=2),
        "registers": from_transformers(
            "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", mlp_ratio=2
        ),
    },
    "BEiT (transformers)": {
        "mean": from_transformers(
            "BeitForImageClassification",
            "BeitConfig",
            use_relative_position_bias=True,
            layer_scale_init_value=0.5,
        ),
        "class token": from_transformers(
            "BeitForImageClassification", "BeitConfig", use_mean_pooling=False
        ),
    },
    "CLIP (transformers)": {"": from_transformers("CLIPForImageClassification", "CLIPConfig")},
    "SigLIP (transformers)": {
        "": from_transformers("SiglipForImageClassification", "SiglipConfig")
    },
    "zero-shot CLIP, SigLIP": {
        "CLIP": zero_shot("CLIPVisionModelWithProjection", "CLIPVisionConfig"),
        "SigLIP": zero_shot("SiglipVisionModel", "SiglipVisionConfig"),
    },
    "ViT (torchvision)": {"": from_torchvision},
}
CASES = [(family, variant) for family, variants in ZOO.items() for variant in variants]


def build(family: str, variant: str) -> nn.Module:
    """Build a variant with weights far from the start of training.

    A layer scale of 1e-5 or a zero classifier would hide what is wrong.
    """
    torch.manual_seed(0)
    model = ZOO[family][variant]()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def images_for(model: Any, count: int = 2) -> Tensor:
    return torch.randn(count, *model.pretrained_cfg["input_size"])
