"""What a probe is given, and what it gives back.

`perturbed`, `numbers`, `features` and `outside` have the probes, `registry` their table.

A probe answers for each image with one or more series of numbers, one number per level: {"series":
    `[B, levels]`}. NaN says that there is no answer. Pixels are `[B, 3, H, W]` in [0, 1];
    normalization is inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from refocus.data.folders import image_files
from refocus.evaluation.metrics import object_seen
from refocus.records import Sample
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import explain, frozen
from refocus.vit.families import covered_pixels, view
from refocus.vit.loading import preprocessing
from refocus.vit.wrappers import unwrap

Series = dict[str, Tensor]  # name -> `[B, levels]`
Views = Iterator[tuple[str, Tensor]]  # (series, pixels), each series' levels in their order


@dataclass(frozen=True)
class Options:
    """Folders beside the images, and choices; what they are say `ProbeSettings`."""

    masks: Path | None = None
    styles: Path | None = None
    cues: Path | None = None
    mapping: Path | None = None
    imagenet_c: Path | None = None
    adain: Path | None = None
    outside: Path | None = None
    transfer: Path | None = None
    results: Path | None = None
    mask_polarity: str = "ask"
    saliency: str = "relevance"
    units: str = "mlp"

    @cached_property
    def style_images(self) -> list[Path]:
        """Images below `styles`, listed once for a call."""
        assert self.styles is not None
        return image_files(self.styles, "styles")


@dataclass(frozen=True)
class Batch:
    """A few images as a model sees them.

    masks: `[B, 1, H, W]` in [0, 1]. seeds: one for each image, the same for every model. labels: -1
    for images outside of the model's classes.
    """

    model: nn.Module
    pixels: Tensor
    labels: Tensor
    seeds: list[int]
    samples: list[Sample]
    root: Path
    options: Options = field(default_factory=Options)
    masks: Tensor | None = None

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] as the model takes them."""
        config = preprocessing(self.model)
        mean, std = (
            torch.tensor(config[key], device=pixels.device).view(3, 1, 1) for key in ("mean", "std")
        )
        return (pixels - mean) / std

    def logits(self, pixels: Tensor) -> Tensor:
        """The model's answers to pixels in [0, 1]."""
        return logits_of(self.model, self.normalized(pixels)).float()

    @cached_property
    def clean(self) -> Tensor:
        """1 where the images as they are get the right answer, else 0: `[B]`."""
        return self.top1(self.pixels)

    def right(self, pixels: Tensor) -> Tensor:
        """`top1`, but the images as they are are asked once."""
        return self.clean if pixels is self.pixels else self.top1(pixels)

    def top1(self, pixels: Tensor) -> Tensor:
        """1 where the model, as it is now, gives the right answer, else 0: `[B]`."""
        with torch.no_grad():
            return (
                (self.logits(pixels.to(self.pixels.device)).argmax(1) == self.labels).float().cpu()
            )

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.pixels.shape[-2:]
        return view(self.model).grid(height, width)

    @cached_property
    def covered(self) -> tuple[int, int]:
        """Rows and columns of pixels that the patches cover, from the top left."""
        return covered_pixels(self.model, self.pixels.shape[-2:])

    def object_in_view(self) -> Tensor:
        """Whether anything of the object is left after the crop: bool `[B]`."""
        assert self.masks is not None
        return object_seen(self.masks[:, 0].cpu(), self.covered)

    @cached_property
    def saliency(self) -> Tensor:
        """What the model finds salient, by patch: `[B, h * w]`."""
        if self.options.saliency == "attention":
            return attention_of_readout(self.model, self.normalized(self.pixels)).mean(1)
        return explain(self.model, self.normalized(self.pixels)).patches.flatten(1)


def answers(batch: Batch, views: Callable[[Batch], Views]) -> Series:
    """Top-1 on perturbed images."""
    found: dict[str, list[Tensor]] = {}
    for series, pixels in views(batch):
        found.setdefault(series, []).append(batch.right(pixels))
    return {series: torch.stack(values, dim=1) for series, values in found.items()}


def attention_of_readout(model: nn.Module, images: Tensor) -> Tensor:
    """How the classifier's token attends to the patches in the last layer, by head.

    `[B, heads, h * w]`, each head's sum 1; of maps in bfloat16 in float32.

    images: normalized. Where the classifier reads a mean of tokens, the mean of their rows; a
        pooling query has its own row.
    """
    reader = view(model)
    with frozen(model), torch.no_grad(), attention_maps(model) as maps:
        logits_of(unwrap(model), images)
    last = maps[-1].to(torch.promote_types(maps[-1].dtype, torch.float32))  # sums of bfloat16 drift
    row = torch.ones(1) if last.shape[-2] == 1 else reader.readout(last.shape[-1])
    rows, columns = reader.grid(images.shape[-2], images.shape[-1])
    attended = torch.einsum("l,bhln->bhn", row.to(last), last)[
        ..., -rows * columns :
    ]  # a pooling query may not see the others
    return attended / attended.sum(-1, keepdim=True)


def image_seed(name: str, seed: int) -> int:
    """One seed per image, independent of the batch."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=6).digest(), "big")


def seeds_of(samples: Sequence[Sample], root: Path, seed: int) -> list[int]:
    """The seed of each image, by its path below the root."""
    return [image_seed(s.image.relative_to(root).as_posix(), seed) for s in samples]
