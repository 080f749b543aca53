"""What a probe is measured with. Imports no torch, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from refocus.errors import InputError
from refocus.settings import (
    AtLeastTwo,
    BatchSize,
    Device,
    MaskPolarity,
    MaskScore,
    PathText,
    Precision,
    Seed,
    Text,
    Workers,
    about,
    check,
)


@dataclass(frozen=True)
class ProbeSettings:
    """How `probe` measures, and on what beside the images.

    Raises:
        InputError: a value that is not legal.

    Examples:
        >>> import refocus
        >>> refocus.ProbeSettings(kinds=("occlusion", "cutout")).most
        200
    """

    kinds: Annotated[
        tuple[Text, ...],
        about(
            "Names of probes, or all to run every probe that the input allows. `refocus probe "
            "list` says what each tests."
        ),
    ] = ("all",)
    masks: Annotated[
        PathText | None, about("Foreground masks, for shapes and attention-segmentation.")
    ] = None
    mask_polarity: MaskPolarity = "ask"
    styles: Annotated[
        PathText | None, about("Folder of pictures to take styles from, for stylization.")
    ] = None
    adain: Annotated[
        PathText | None,
        about(
            "Folder with the published weights of AdaIN, vgg and decoder (.safetensors or .pth): "
            "stylization is also done with them."
        ),
    ] = None
    cues: Annotated[
        PathText | None, about("Cue conflict stimuli: SHAPE/SHAPEn-TEXTUREm.EXT, for shape-bias.")
    ] = None
    mapping: Annotated[
        PathText | None,
        about('For ‹cues› with your own classes: JSON {"cat": ["tabby", ...]}.'),
    ] = None
    imagenet_c: Annotated[
        PathText | None, about("The published ImageNet-C: CORRUPTION/SEVERITY/WNID/FILE.")
    ] = None
    outside: Annotated[
        PathText | None,
        about("Folder of pictures of none of the model's classes, for out-of-distribution."),
    ] = None
    transfer: Annotated[
        PathText | None,
        about("ImageFolder of any classes (CLASS/FILE), for transfer."),
    ] = None
    results: Annotated[
        PathText | None,
        about("Folder with results of `refocus evaluate`, at any depth, for effective-robustness."),
    ] = None
    units: Annotated[
        Literal["mlp", "token"],
        about(
            "What the probe units examines in the last block: its MLP's units, or its class token."
        ),
    ] = "mlp"
    saliency: Annotated[
        Literal["relevance", "attention"],
        about("What the probe occlusion treats as salient: relevance, or attention as in DINO."),
    ] = "relevance"
    most: Annotated[
        AtLeastTwo | None, about("Maximum number of images, spread over the classes.")
    ] = 200
    mask_score: MaskScore = 0.5
    batch_size: BatchSize = 32
    precision: Precision = "fp32"
    workers: Workers = "auto"
    seed: Annotated[Seed, about("Seed for the choice of images and everything random.")] = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Refuse what is not legal."""
        check(self)
        if self.mapping is not None and self.cues is None:
            raise InputError(f"‹mapping› {self.mapping}: only with ‹cues›")
        if self.adain is not None and self.styles is None:
            raise InputError(f"‹adain› {self.adain}: only with ‹styles›")
