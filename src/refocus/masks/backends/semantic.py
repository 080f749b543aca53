"""Semantic, instance and universal segmenters of transformers: classes of every pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from refocus.errors import InputError
from refocus.masks.backends.checkpoints import Checkpoint, squashed
from refocus.masks.backends.protocol import Backend, Found, enlarged
from refocus.vit.classes import by_index, loose
from refocus.vit.transformers_models import library

BACKGROUND = "background"
QUERIES = ("detr", "eomt", "eomt_dinov3", "mask2former", "maskformer")  # masks and their classes


def segmenter(checkpoint: Checkpoint) -> Backend | None:
    """Find the pixels of the class that an image shows, or of every class but the background.

    None where the checkpoint is another kind of model.
    """
    transformers = library()
    kind, config = checkpoint.kind, checkpoint.config
    if kind in QUERIES:
        made_by = transformers.AutoModelForUniversalSegmentation
    elif type(config) in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        made_by = transformers.AutoModelForSemanticSegmentation
    else:
        return None
    labels = by_index(config.id2label, f"‹backend› {checkpoint.shown}: id2label")
    processor = checkpoint.processor(transformers.AutoImageProcessor)
    model = checkpoint.model(made_by)

    def find(image: Image.Image, name: str) -> Found:
        with torch.inference_mode():
            output = model(pixel_values=squashed(image, processor, model))
        classes = _of_queries(output) if kind in QUERIES else _of_pixels(output.logits)
        return Found(enlarged(foreground(classes, labels, name), image.size))

    return find


def foreground(classes: Tensor, labels: Sequence[str], name: str) -> Tensor:
    """Of the probabilities of the classes `[K, h, w]` that of the object: `[h, w]`.

    The classes called `name` count; where none is, all but the background.

    Raises:
        InputError: neither is among the labels.
    """
    if len(labels) == 1:
        return classes[0]
    synonyms = [{loose(part) for part in re.split("[,;]", label)} for label in labels]
    mine = [i for i, words in enumerate(synonyms) if name and loose(name) in words]
    if mine:
        return classes[mine].sum(0)
    if (behind := [i for i, words in enumerate(synonyms) if BACKGROUND in words]) and (
        others := [i for i in range(len(labels)) if i not in behind]
    ):
        return classes[others].sum(0)
    raise InputError(
        f"none of the {len(labels)} labels of ‹backend› is called "
        f"{' or '.join(repr(label) for label in (name, BACKGROUND) if label)}; the first are "
        f"{', '.join(labels[:3])}"
    )


def _of_pixels(logits: Tensor) -> Tensor:
    """`[1, K, h, w]` -> `[K, h, w]`; one output is a probability by itself."""
    return logits[0].sigmoid() if logits.shape[1] == 1 else logits[0].softmax(0)


def _of_queries(output: object) -> Tensor:
    """Masks `[Q, h, w]` weighted by their classes `[Q, K]` (MaskFormer's semantic inference).

    The last class of a query is "no object".
    """
    names = (("class_queries_logits", "masks_queries_logits"), ("logits", "pred_masks"))
    classes, masks = next(
        (getattr(output, c)[0], getattr(output, m)[0]) for c, m in names if hasattr(output, m)
    )
    found: Tensor = torch.einsum("qk,qhw->khw", classes.softmax(-1)[:, :-1], masks.sigmoid()).clamp(
        0, 1
    )
    return found
