"""Models that are asked for a class by its name: CLIPSeg, or Grounding DINO's boxes for SAM."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from refocus.errors import InputError
from refocus.masks.backends.checkpoints import Checkpoint, squashed
from refocus.masks.backends.prompted import Box, InBoxes
from refocus.masks.backends.protocol import Backend, Found, enlarged
from refocus.vit.transformers_models import library

MAPS = ("clipseg",)
DETECTORS = ("grounding-dino", "mm-grounding-dino")
_BOX, _WORD = 0.3, 0.25  # least scores of a box and of a word in it, Grounding DINO's own


def by_map(checkpoint: Checkpoint) -> Backend:
    """Find what CLIPSeg marks for the name (Lüddecke and Ecker, CVPR 2022).

    Raises:
        InputError: the checkpoint is another kind of model.
    """
    processor, model = _read(checkpoint, MAPS, "CLIPSegForImageSegmentation")

    def find(image: Image.Image, name: str) -> Found:
        words = processor.tokenizer([_asked(name)], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            logits = model(
                input_ids=words["input_ids"],
                attention_mask=words["attention_mask"],
                pixel_values=squashed(image, processor.image_processor, model),
            ).logits
        return Found(enlarged(logits.reshape(logits.shape[-2:]).sigmoid(), image.size))

    return find


def by_boxes(detector: Checkpoint, masks: InBoxes) -> Backend:
    """Find what is in the boxes that Grounding DINO draws for the name (Liu et al., ECCV 2024).

    Raises:
        InputError: the checkpoint is another kind of model.
    """
    processor, model = _read(detector, DETECTORS, "AutoModelForZeroShotObjectDetection")

    def boxes(image: Image.Image, name: str) -> list[Box]:
        text = f"{_asked(name).lower()}."  # as it was trained
        given = processor(images=image, text=text, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model(**given)
        found = processor.post_process_grounded_object_detection(
            output,
            given["input_ids"],
            threshold=_BOX,
            text_threshold=_WORD,
            target_sizes=[image.size[::-1]],
        )[0]
        return [tuple(box) for box in found["boxes"].tolist()]

    def find(image: Image.Image, name: str) -> Found:
        drawn = boxes(image, name)
        if not drawn:
            raise InputError(f"‹backend› finds no {name}")
        return Found(masks(image, drawn))

    return find


def _asked(name: str) -> str:
    if not name:
        raise InputError("lies in no class folder, so ‹backend› has no name to look for")
    return name


def _read(checkpoint: Checkpoint, kinds: tuple[str, ...], made_by: str) -> tuple[Any, Any]:
    """Processor and model of a checkpoint of one of these kinds."""
    if checkpoint.kind not in kinds:
        raise InputError(
            f"‹backend› text:{checkpoint.place}: is a {checkpoint.kind or 'model without a type'}; "
            f"must be one of {', '.join(kinds)}"
        )
    transformers = library()
    processor = checkpoint.processor(transformers.AutoProcessor)
    return processor, checkpoint.model(getattr(transformers, made_by))
