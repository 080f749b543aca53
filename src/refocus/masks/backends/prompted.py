"""SAM and its like: the object inside a box, which another backend's mask or a detector gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from refocus.errors import InputError
from refocus.masks.backends.checkpoints import Checkpoint
from refocus.masks.backends.protocol import Backend, Found
from refocus.vit.transformers_models import library

KINDS = ("sam", "sam_hq", "sam2", "sam2_video", "sam3_tracker", "edgetam")
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
InBoxes = Callable[[Image.Image, Sequence[Box]], np.ndarray]


def in_boxes(checkpoint: Checkpoint) -> InBoxes:
    """From an image and boxes to the soft mask of what is in them, float32 `[H, W]`.

    Raises:
        InputError: the checkpoint takes no boxes.
    """
    if checkpoint.kind not in KINDS:
        raise InputError(
            f"‹backend› {checkpoint.shown}: is a {checkpoint.kind}; must be one of "
            f"{', '.join(KINDS)}"
        )
    transformers = library()
    processor = checkpoint.processor(transformers.AutoProcessor)
    model = checkpoint.model(transformers.AutoModelForMaskGeneration)

    def masks(image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
        listed = [[list(map(float, box)) for box in boxes]]
        given = processor(images=image, input_boxes=listed, return_tensors="pt").to(model.device)
        sizes = [given.pop("original_sizes").cpu()]
        if "reshaped_input_sizes" in given:  # SAM's, which pads
            sizes.append(given.pop("reshaped_input_sizes").cpu())
        with torch.inference_mode():
            logits = model(**given, multimask_output=False).pred_masks.float().cpu()
        full = processor.post_process_masks(logits, *sizes, binarize=False)[0]  # [boxes, 1, H, W]
        found: np.ndarray = full.sigmoid().amax((0, 1)).numpy()
        return found

    return masks


def prompted(masks: InBoxes, by: Backend) -> Backend:
    """Find the object in the box around another backend's mask, which is the second opinion."""

    def find(image: Image.Image, name: str) -> Found:
        rough = by(image, name).soft > 0.5
        if not rough.any():
            raise InputError("our own mask, whose box prompts ‹backend›, is empty")
        return Found(masks(image, [box_of(rough)]), rough)

    return find


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask, bool `[H, W]`, not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
