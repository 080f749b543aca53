"""Zero-shot classifiers: an image tower of CLIP or SigLIP with a head of class names.

Radford et al., ICML 2021, Section 3.1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.errors import InputError
from refocus.vit.transformers_models import (
    configuration,
    described,
    fetch,
    image_processor,
    library,
    save_network,
    weights,
)

HEAD = "zero_shot.safetensors"  # beside the image tower, which plain transformers reads
_TOWERS = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip_vision_model": "SiglipVisionModel",
}


class ZeroShot(nn.Module):
    """logits = scale * cos(image embedding, class embedding) + shift.

    scale and shift stay as they were learned.
    """

    def __init__(self, tower: nn.Module, embeddings: Tensor, scale: float, shift: float) -> None:
        super().__init__()
        self.tower = tower
        self.classifier = nn.Linear(embeddings.shape[1], len(embeddings), bias=False)
        self.classifier.weight.data = embeddings.clone()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("shift", torch.tensor(shift))

    @property
    def num_classes(self) -> int:
        """How many names the head has."""
        return self.classifier.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images `[B, 3, H, W]` -> logits `[B, K]`."""
        output = self.tower(images)
        embedding = output.image_embeds if hasattr(output, "image_embeds") else output.pooler_output
        values: Tensor = self.scale * self.classifier(F.normalize(embedding, dim=-1)) + self.shift
        return values


def templates() -> list[str]:
    """The 80 sentences of OpenAI's CLIP for ImageNet, `{}` where the class name goes."""
    text = files("refocus").joinpath("assets", "clip_templates.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def build(
    name: str, folders: Sequence[str], words: Sequence[str], sentences: Sequence[str]
) -> nn.Module:
    """A classifier from a CLIP or SigLIP of transformers.

    Args:
        name: hub name or folder that save_pretrained wrote, with its tokenizer and image processor.
        folders: class names, as the class folders of images are called.
        words: what to call each class in a sentence.
        sentences: templates with `{}`; the normalized mean over them is the class's embedding.

    Raises:
        InputError: not such a model, or it cannot be loaded.
    """
    transformers = library()
    config = configuration(name, name)
    kind = (config.architectures or [""])[0]
    if kind not in ("CLIPModel", "SiglipModel"):
        raise InputError(
            f"‹model› {name}: {kind or type(config).__name__}; must be CLIPModel or SiglipModel "
            "of transformers"
        )
    whole = weights(name, getattr(transformers, kind), name).eval().requires_grad_(False)
    if kind == "SiglipModel" and not transformers.utils.is_sentencepiece_available():
        raise InputError(
            f"‹model› {name}: SigLIP's words need sentencepiece; install it with pip install "
            "'refocus-vit[hf]'"
        )
    tokenizer = fetch(
        name, lambda: transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    )
    processor = image_processor(name, name)
    embeddings = torch.stack(
        [
            _class_embedding(whole, tokenizer, [s.replace("{}", word) for s in sentences])
            for word in words
        ]
    )
    if hasattr(config, "projection_dim"):
        config.vision_config.projection_dim = config.projection_dim
    tower = getattr(transformers, _TOWERS[config.vision_config.model_type])(config.vision_config)
    known = whole.state_dict()  # SigLIP's tower goes without the prefix that CLIP's has
    tower.load_state_dict(
        {k: known[k] if k in known else known[f"vision_model.{k}"] for k in tower.state_dict()}
    )
    shift = float(whole.logit_bias) if hasattr(whole, "logit_bias") else 0.0
    model = ZeroShot(tower, embeddings, float(whole.logit_scale.exp()), shift)
    module: nn.Module = described(model.eval(), processor, list(folders), len(folders))
    return module


def _class_embedding(whole: Any, tokenizer: Any, sentences: list[str]) -> Tensor:
    length = whole.config.text_config.max_position_embeddings
    tokens = tokenizer(
        sentences, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    known = {
        k: v
        for k, v in tokens.items()
        if k == "input_ids" or (k == "attention_mask" and "CLIP" in type(whole).__name__)
    }
    output = whole.get_text_features(**known)
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(F.normalize(features, dim=-1).mean(0), dim=-1)


def load_folder(folder: Path, *, pretrained: bool) -> nn.Module:
    """What `save` wrote."""
    transformers = library()
    config = configuration(str(folder), str(folder))
    if config.model_type not in _TOWERS:
        raise InputError(
            f"‹model› {folder}: {config.model_type} beside {HEAD}; choose one of "
            f"{', '.join(_TOWERS)}"
        )
    kind = getattr(transformers, _TOWERS[config.model_type])
    tower = weights(str(folder), kind, str(folder)) if pretrained else kind(config)
    names, parts = fetch(str(folder), lambda: _read_head(folder / HEAD))
    model = ZeroShot(tower, parts["embeddings"], float(parts["scale"]), float(parts["shift"]))
    module: nn.Module = described(
        model, image_processor(str(folder), str(folder)), names, len(names)
    )
    return module


def _read_head(file: Path) -> tuple[list[str], dict[str, Tensor]]:
    with safe_open(file, "pt") as head:
        return json.loads(head.metadata()["label_names"]), {
            key: head.get_tensor(key) for key in ("embeddings", "scale", "shift")
        }


def save(model: Any, folder: Path) -> None:
    """The image tower and its processor as transformers writes them, and the head beside."""
    save_network(model.tower, folder)
    model.image_processor.save_pretrained(folder)
    parts = {"embeddings": model.classifier.weight, "scale": model.scale, "shift": model.shift}
    tensors = {name: value.detach().contiguous() for name, value in parts.items()}
    save_file(
        tensors,
        folder / HEAD,
        metadata={"label_names": json.dumps(model.pretrained_cfg["label_names"])},
    )
