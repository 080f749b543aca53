"""The probes, one table; `choice` says which of them can be run with what is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.plugins import Table
from refocus.probes.batch import Batch, Options, Series, answers
from refocus.probes.features import (
    SHOTS,
    STRONG,
    STRONGEST,
    block_answers,
    block_features,
    heads_at,
    mlp_can_be_read,
    transfer_answers,
    transfer_features,
    unit_activations,
    unit_numbers,
    unit_pictures,
)
from refocus.probes.left_out import LeftOut
from refocus.probes.lines import TUNED, above_the_line, gathered, levels, scatter
from refocus.probes.numbers import (
    REACHES,
    TARGETS,
    attention_segmentation,
    class_tokens,
    exits,
    heads,
    local_attention,
    pgd_path,
    removals,
    rotation_answers,
    rotation_features,
    shape_bias,
    subsets,
    subsets_picture,
    surgery,
)
from refocus.probes.outside import DETECTION, SOFTMAX, histograms, outside_scores
from refocus.probes.outside import LEVELS as DETECTED
from refocus.probes.perturbed import (
    AREAS,
    BUDGETS,
    CELLS,
    HIGH,
    HOLES,
    LOW,
    SHAPES,
    SHARES,
    STRENGTHS,
    corruption,
    cutout,
    fgsm,
    fourier,
    frequencies,
    high_pass,
    imagenet_c,
    low_pass,
    occlusion,
    patch_attack,
    permutation,
    pgd,
    shapes,
    stylization,
)
from refocus.probes.pooled import Pooled
from refocus.probes.results import Level
from refocus.probes.spatial import (
    SHIFTS,
    TURNS,
    patch_sizes,
    patches,
    patches_can_change,
    shifts,
    turns,
)
from refocus.probes.tools.corruptions import SEVERITIES, summary
from refocus.probes.tools.surgery import PARTS, without
from refocus.records import ProbeRecord
from refocus.relevance.attention import limited_attention
from refocus.vit.families import view
from refocus.vit.loading import preprocessing

TOP1 = "top-1, %"


@dataclass(frozen=True)
class Probe:
    """A row of the table.

    run: perturbed images, or with `numbers` the numbers themselves. With `found` no model is asked:
        it is given the options and makes the records, and `found` their levels. asked: which
        images of a batch can be asked, bool `[B]`; the others have no answer. levels: values along
        the x axis.

    cost: forward passes per image; a gradient counts as two more. first: the first level that
        counts in the headline, which is the mean over it and all later ones. after: makes final
        records of all records at once and of the seed. pooled: makes numbers of all images
        together, which are no means over them. most: cap on the images. needs: `Options` that must
        be given, and packages. better: is more better? fits: fits a head on the images' labels.
        picture: draws the first images; album: draws all records (records, folder of the images,
        file, seed).
    """

    run: Callable[[Any], Any]
    levels: Sequence[Level] | Callable[[nn.Module], list[Level]]
    about: str
    source: str
    xlabel: str
    cost: str
    numbers: bool = False
    asked: Callable[[Batch], Tensor] | None = None
    unit: str = TOP1
    first: int = 1
    better: bool = True
    needs: tuple[str, ...] = ()
    most: int | None = None
    on: str = "images"
    check: Callable[[nn.Module], None] | None = None
    after: Callable[[list[ProbeRecord], int], list[ProbeRecord]] | None = None
    pooled: Pooled | LeftOut | None = None
    found: Callable[[Options], list[Level]] | None = None
    fits: bool = False
    reads_units: bool = False
    picture: Callable[[Batch, Path], None] | None = None
    album: Callable[[Sequence[ProbeRecord], Path, Path, int], None] | None = None
    extra: Callable[[dict[str, list[float]]], dict[str, float | None]] | None = None
    headline: tuple[str, ...] = field(default=())  # series that count in it; none: all

    def levels_of(self, model: nn.Module) -> list[Level]:
        """Values along the x axis for this model."""
        return self.levels(model) if callable(self.levels) else list(self.levels)

    def measure(self, batch: Batch) -> Series:
        """The numbers of a batch, a value for each image and level."""
        found: Series = self.run(batch) if self.numbers else answers(batch, self.run)
        if self.asked is None:
            return found
        left = ~self.asked(batch)[:, None]
        return {name: values.masked_fill(left, torch.nan) for name, values in found.items()}


def _parts_can_go(model: nn.Module) -> None:
    for part in PARTS:
        with without(model, part, [0]):
            pass


def _blocks_can_go(model: nn.Module) -> None:
    with without(model, "block", [0]):
        pass


def _square(model: nn.Module) -> None:
    height, width = preprocessing(model)["input_size"][1:]
    if height != width:
        raise InputError(
            f"‹kinds› rotation: the model's input is {height} x {width}; a turned image must be "
            "square"
        )


def _attention_can_be_limited(model: nn.Module) -> None:
    with limited_attention(model, torch.ones(1, 1, dtype=torch.bool)):
        pass


def _readable(model: nn.Module) -> None:
    view(model)


_255 = "largest change of a pixel, 1/255"
_OWN = {
    "fgsm": Probe(
        fgsm,
        BUDGETS,
        "One gradient step of the given size against the answer: how easily does a change too "
        "small to see flip it?",
        "Goodfellow, Shlens & Szegedy, ICLR 2015",
        _255,
        "20",
    ),
    "pgd": Probe(
        pgd,
        BUDGETS,
        "Ten steps against the answer within the budget: about the strongest simple attack. Most "
        "models that were not trained against it fall to zero.",
        "Madry et al., ICLR 2018",
        _255,
        "160",
    ),
    "patch-attack": Probe(
        patch_attack,
        AREAS,
        "A small square at a random place may take any colours: can it outvote the object?",
        "Brown et al., 2017; Karmon, Zoran & Goldberg, ICML 2018",
        "area of the square, share of the image",
        "250",
    ),
    "pgd-path": Probe(
        pgd_path,
        list(range(11)),
        "The loss along the ten steps (budget 1/255): a smooth, slow rise suggests a robust loss "
        "surface.",
        "Paul & Chen, AAAI 2022",
        "step",
        "31",
        numbers=True,
        unit="loss (cross-entropy)",
        better=False,
    ),
    "occlusion": Probe(
        occlusion,
        SHARES,
        "Patches turn black at random, or the salient ones first or last: how much of the image, "
        "and which part, does the model need?",
        "Naseer et al., NeurIPS 2021",
        "share of the patches",
        "34",
        check=_readable,
    ),
    "permutation": Probe(
        permutation,
        [f"{n}x{n}" for n in CELLS],
        "The image is cut into a grid and its cells are shuffled: a model that still recognizes "
        "it relies on textures.",
        "Naseer et al., NeurIPS 2021",
        "grid",
        "5",
    ),
    "cutout": Probe(
        cutout,
        HOLES,
        "One hole of the mean colour at a random place: does the answer survive when a part is "
        "hidden?",
        "DeVries & Taylor, 2017; as a test: Paul & Chen, AAAI 2022",
        "area of the hole, share of the image",
        "7",
    ),
    "turns": Probe(
        turns,
        TURNS,
        "The image is rotated to either side: does the answer depend on which way is up?",
        "Engstrom et al., ICML 2019",
        "turned by, degrees",
        "8",
    ),
    "shifts": Probe(
        shifts,
        SHIFTS,
        "The image is shifted in a random direction: does the answer depend on where the object "
        "is?",
        "Engstrom et al., ICML 2019; Azulay & Weiss, JMLR 2019",
        "shifted by, share of the side",
        "6",
    ),
    "patches": Probe(
        patches,
        patch_sizes,
        "The same image in smaller and larger patches, with the kernel and the positions "
        "resampled: does the answer depend on the grid?",
        "Beyer et al. (FlexiViT), CVPR 2023",
        "side of a patch, pixels",
        "8",
        numbers=True,
        check=patches_can_change,
    ),
    "surgery": Probe(
        surgery,
        removals,
        "One block, attention or MLP is left out at test time: is the answer spread over the "
        "layers or does it depend on one?",
        "Bhojanapalli et al., ICCV 2021",
        "what is left out of block",
        "3 for each block",
        numbers=True,
        check=_parts_can_go,
    ),
    "local-attention": Probe(
        local_attention,
        ["all", *map(str, reversed(REACHES))],
        "Patches attend only to their neighbours: does the model need to look far?",
        "Bhojanapalli et al., ICCV 2021",
        "patches on each side that are seen",
        "7",
        numbers=True,
        check=_attention_can_be_limited,
    ),
    "class-tokens": Probe(
        class_tokens,
        exits,
        "Each block's token is classified directly, alone and averaged with all later ones: from "
        "which block on is the answer there?",
        "Naseer et al., NeurIPS 2021",
        "block",
        "1 for each block",
        numbers=True,
        first=0,
        check=_blocks_can_go,
        headline=("this block",),
    ),
    "low-pass": Probe(
        low_pass,
        LOW,
        "Fine detail is removed: shapes stay, textures go.",
        "Ghiasi et al., 2022",
        "highest frequency kept, share of the highest possible",
        "7",
    ),
    "high-pass": Probe(
        high_pass,
        HIGH,
        "Coarse structure is removed: textures and edges stay.",
        "Ghiasi et al., 2022",
        "lowest frequency kept, share of the highest possible",
        "7",
    ),
    "fourier": Probe(
        fourier,
        frequencies,
        "A wave of a single frequency is laid over the image: to which frequencies is the model "
        "sensitive?",
        "Yin et al., NeurIPS 2019",
        "frequency, cycles per image",
        "34",
        first=0,
    ),
    "corruptions": Probe(
        corruption,
        [0, *SEVERITIES],
        "Noise, blur, weather and digital faults, 15 kinds in five severities, made on the fly.",
        "Hendrycks & Dietterich, ICLR 2019",
        "severity",
        "76",
    ),
    "imagenet-c": Probe(
        imagenet_c,
        SEVERITIES,
        "The published ImageNet-C: the 15 corruptions in five severities, with the mean corruption "
        "error relative to AlexNet's.",
        "Hendrycks & Dietterich, ICLR 2019",
        "severity",
        "75",
        first=0,
        needs=("imagenet_c",),
        on="imagenet_c",
        extra=summary,
    ),
    "shapes": Probe(
        shapes,
        SHAPES,
        "The object as a black silhouette and as its edges, on white: is its shape enough?",
        "Geirhos et al., ICLR 2019",
        "what is shown",
        "3",
        asked=Batch.object_in_view,
        needs=("masks",),
    ),
    "stylization": Probe(
        stylization,
        STRENGTHS,
        "Textures and colours change to those of other pictures while shapes stay: does the model "
        "rely on shape?",
        "after Geirhos et al., ICLR 2019; amplitudes: Xu et al., CVPR 2021; AdaIN: Huang & "
        "Belongie, ICCV 2017",
        "how far the picture is moved to the style",
        "5, with AdaIN 9 and its networks",
        needs=("styles",),
    ),
    "shape-bias": Probe(
        shape_bias,
        ["cue conflict"],
        "Pictures with the shape of one thing and the texture of another: which of the two does "
        "the model name?",
        "Geirhos et al., ICLR 2019",
        "stimuli",
        "1",
        numbers=True,
        unit="decisions for the shape, %",
        first=0,
        needs=("cues",),
        on="cues",
    ),
    "rotation": Probe(
        rotation_features,
        ["four turns"],
        "Can a linear head tell from the features how the image was rotated (chance 25 %)? This "
        "needs some knowledge of shape.",
        "Gidaris, Singh & Komodakis, ICLR 2018",
        "task",
        "4",
        numbers=True,
        unit="turns found, %",
        first=0,
        check=_square,
        after=rotation_answers,
    ),
    "block-heads": Probe(
        block_features,
        heads_at,
        "A linear head is fitted on each block's token, and on all of them side by side: does the "
        "last token hold all that the model knows?",
        "Naseer et al., NeurIPS 2021",
        "block",
        "1",
        numbers=True,
        first=0,
        check=_blocks_can_go,
        after=block_answers,
        fits=True,
    ),
    "transfer": Probe(
        transfer_features,
        (*SHOTS, "all"),
        "A linear head on the features, fitted on few or all images of another folder's classes: "
        "are the features useful beyond the model's own classes?",
        "Kornblith, Shlens & Le, CVPR 2019",
        "training images per class, at most",
        "1",
        numbers=True,
        first=0,
        needs=("transfer",),
        on="transfer",
        after=transfer_answers,
        fits=True,
    ),
    "out-of-distribution": Probe(
        outside_scores,
        DETECTED,
        "Two scores of the answer, the maximum softmax probability and the energy: do they tell "
        "the model's classes from other pictures (chance: 50 and 95 %)?",
        "Hendrycks & Gimpel, ICLR 2017; Liu et al., NeurIPS 2020",
        "false alarms at 95 % recall, and area under the curve",
        "1",
        numbers=True,
        unit="AUROC or FPR95, %",
        needs=("outside",),
        pooled=DETECTION,
        album=histograms,
        headline=(SOFTMAX,),
    ),
    "units": Probe(
        unit_activations,
        STRONGEST,
        "The images that excite each unit of the last block most: are they of one class?",
        "after Goh et al., Distill 2021; units of MLPs: Ghiasi et al., 2022",
        "strongest images",
        "1",
        numbers=True,
        unit="images of one class, %",
        first=0,
        check=mlp_can_be_read,
        pooled=LeftOut(unit_numbers),
        reads_units=True,
        album=unit_pictures,
        headline=(STRONG,),
    ),
    "effective-robustness": Probe(
        gathered,
        (),
        "Shifted against clean accuracy of many models, from results of `refocus evaluate`: are "
        "the tuned models above the line of the others, or did clean accuracy rise just as much?",
        "Taori et al., NeurIPS 2020",
        "shifted test set",
        "0",
        numbers=True,
        unit="points above the line",
        first=0,
        needs=("results",),
        found=levels,
        after=above_the_line,
        album=scatter,
        headline=(TUNED,),
    ),
    "attention-segmentation": Probe(
        attention_segmentation,
        heads,
        "The patches that hold most of the last layer's attention, against the masks: does the "
        "model look at the object?",
        "Caron et al. (DINO), ICCV 2021",
        "head",
        "1",
        numbers=True,
        unit="Jaccard index, %",
        first=-1,
        asked=Batch.object_in_view,
        needs=("masks",),
        check=_readable,
    ),
    "subsets": Probe(
        subsets,
        TARGETS,
        "The fewest pixels that give a class a confidence of 90 %, for the predicted class and for "
        "five random ones: "
        "if any class can be reached, such pixels say little about what the model looks at.",
        "Carter et al., AISTATS 2019; Appendix A of Chefer, Schwartz & Wolf, NeurIPS 2022",
        "class",
        "1800",
        numbers=True,
        unit="share of images or of pixels, %",
        most=20,
        picture=subsets_picture,
        headline=("a subset is found",),
        better=False,
    ),
}
PROBES = Table("refocus.probes", _OWN, Probe)
