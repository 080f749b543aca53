"""Probes that give numbers of their own (`Series`).

Each is a few lines. Where each protocol comes from and where ours departs stands in docs/probes.md.
Axes: B images, L blocks, P patches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from refocus.evaluation import cues
from refocus.evaluation.collect import softmax_shares
from refocus.figures.pictures import figure
from refocus.objectives import rotations
from refocus.probes.batch import Batch, Series, attention_of_readout
from refocus.probes.results import Level
from refocus.probes.tools import attacks
from refocus.probes.tools import perturbations as change
from refocus.probes.tools.subsets import sufficient_subsets
from refocus.probes.tools.surgery import PARTS, blocks, neighbours, without
from refocus.records import ProbeRecord
from refocus.relevance.answers import last_linear_input
from refocus.relevance.attention import limited_attention
from refocus.relevance.gae import stretched
from refocus.vit.classes import names_of
from refocus.vit.families import view
from refocus.vit.loading import preprocessing

PATH_BUDGET = 1  # of 255


def pgd_path(b: Batch) -> Series:
    """The loss after each step of PGD."""
    return {
        "loss": attacks.pgd(b.model, b.logits, b.pixels, b.labels, PATH_BUDGET / 255, b.seeds)[1]
    }


def removals(model: nn.Module) -> list[Level]:
    """Levels of `surgery`: none, then each block."""
    return ["none", *map(str, range(1, len(blocks(model)) + 1))]


def surgery(b: Batch) -> Series:
    """Top-1 without one block, its attention or its MLP."""
    found = {}
    for part in PARTS:
        rows = [b.clean]
        for number in range(len(blocks(b.model))):
            with without(b.model, part, [number]):
                rows.append(b.top1(b.pixels))
        found[part] = torch.stack(rows, dim=1)
    return found


REACHES = (0, 1, 2, 3, 4, 6)  # patches


def local_attention(b: Batch) -> Series:
    """Top-1 where patches see only those that are near."""
    rows = [b.clean]
    for reach in reversed(REACHES):
        with limited_attention(b.model, neighbours(b.grid, view(b.model).prefix, reach)):
            rows.append(b.top1(b.pixels))
    return {"local": torch.stack(rows, dim=1)}


def exits(model: nn.Module) -> list[Level]:
    """Levels of `class_tokens`: each block."""
    return [str(number) for number in range(1, len(blocks(model)) + 1)]


def class_tokens(b: Batch) -> Series:
    """Classify what each block hands on, by leaving out all blocks behind it."""
    count, shares = len(blocks(b.model)), []
    with torch.no_grad():
        for number in range(count):
            with without(b.model, "block", range(number + 1, count)):
                shares.append(b.logits(b.pixels).softmax(1).cpu())
    labels = b.labels.cpu()
    last = [torch.stack(shares[number:]).mean(0) for number in range(count)]
    return {
        name: torch.stack([(s.argmax(1) == labels).float() for s in some], dim=1)
        for name, some in (("this block", shares), ("mean of this and all later blocks", last))
    }


def shape_bias(b: Batch) -> Series:
    """1 for a decision for the shape, 0 for the texture.

    NaN for neither or where the cues agree.
    """
    table = cues.mapping(b.model, b.options.mapping)
    names = list(table)
    with torch.no_grad():
        shares = softmax_shares(b.model, b.normalized(b.pixels))
    best = torch.stack([shares[:, table[name]].mean(1) for name in names], dim=1).argmax(1).tolist()
    found = []
    for sample, decision in zip(b.samples, best, strict=True):
        shape, texture = cues.cue(sample.image)
        known = shape != texture and {shape, texture} <= set(names)
        value = (
            float(names[decision] == shape)
            if known and names[decision] in (shape, texture)
            else float("nan")
        )
        found.append(value)
    return {"decisions for the shape": torch.tensor(found)[:, None]}


def rotation_features(b: Batch) -> Series:
    """Features of the four turns, `[B, 4 D]`.

    `rotation_answers` makes the numbers, when all images are there.
    """
    with torch.no_grad():
        features = (
            last_linear_input(b.model, b.normalized(rotations.turned(b.pixels)))[1]
            .flatten(1)
            .float()
            .cpu()
        )
    return {"features": features.unflatten(0, (rotations.TURNS, -1)).transpose(0, 1).flatten(1)}


def rotation_answers(records: list[ProbeRecord], seed: int) -> list[ProbeRecord]:
    """Which turns a linear head on the features tells."""
    features = np.array([row.values["features"] for row in records], dtype=np.float64)
    found = rotations.held_out(features.reshape(len(records), rotations.TURNS, -1), seed)
    return [
        ProbeRecord(row.image, {"turns found": (None if np.isnan(value) else float(value),)})
        for row, value in zip(records, found, strict=True)
    ]


MASSES = (0.6, 0.9)


def heads(model: nn.Module) -> list[Level]:
    """Levels of `attention_segmentation`: each head, and the best."""
    height, width = preprocessing(model)["input_size"][1:]
    device = next(model.parameters()).device
    count = attention_of_readout(model, torch.zeros(1, 3, height, width, device=device)).shape[1]
    return [*map(str, range(1, count + 1)), "best"]


def attention_segmentation(b: Batch) -> Series:
    """Jaccard index of the patches with most of the attention against the mask.

    By head, and of each image's best head.
    """
    assert b.masks is not None
    truth = b.masks[:, 0].cpu() > 0.5
    attended = attention_of_readout(b.model, b.normalized(b.pixels)).cpu()
    found = {}
    for mass in MASSES:
        inside = covering(attended, mass).float().unflatten(-1, b.grid)
        drawn = stretched(inside, truth.shape[-2:], b.covered) > 0.5
        both, either = (drawn & truth[:, None]).sum((2, 3)), (drawn | truth[:, None]).sum((2, 3))
        overlap = both / either.clamp(min=1)
        found[f"{mass:.0%} of the attention"] = torch.cat(
            [overlap, overlap.max(1, keepdim=True).values], dim=1
        )
    return found


def covering(attended: Tensor, mass: float) -> Tensor:
    """The fewest patches that hold this share of the attention.

    Bool like `attended` `[..., P]`, whose sums are 1.
    """
    values, order = attended.sort(-1, descending=True)
    needed = values.cumsum(-1) - values < mass  # what lies before a patch is not yet enough
    return torch.zeros_like(needed).scatter(-1, order, needed)


RANDOM_CLASSES = 5  # of each image, as in the paper's figure
TARGETS = ("predicted class", "random classes")


def random_classes(predicted: int, count: int, seed: int) -> list[int]:
    """Other classes than the predicted one, drawn without repetition."""
    drawn = torch.randperm(count, generator=change.generator(seed)).tolist()
    return [c for c in drawn if c != predicted][:RANDOM_CLASSES]


def subsets(b: Batch) -> Series:
    """Share of the image that suffices, for the predicted class and for random others."""
    images = b.normalized(b.pixels)
    with torch.no_grad():
        logits = b.logits(b.pixels)
    found, sizes = [], []
    for image, answer, seed in zip(images, logits, b.seeds, strict=True):
        predicted = int(answer.argmax())
        targets = [predicted, *random_classes(predicted, len(answer), seed)]
        some = sufficient_subsets(
            b.model,
            image.expand(len(targets), -1, -1, -1),
            torch.tensor(targets, device=image.device),
        )
        got, share = some.found.float(), some.share.masked_fill(~some.found, torch.nan)
        found.append(torch.stack([got[0], got[1:].mean()]))
        sizes.append(torch.stack([share[0], share[1:].nanmean()]))
    return {"a subset is found": torch.stack(found), "pixels it needs": torch.stack(sizes)}


def subsets_picture(b: Batch, path: Path) -> None:
    """The appendix's figure: images, and beside each its sufficient subsets.

    For its predicted class and for five random ones.
    """
    names, rows, captions = names_of(b.model), [], []
    images = b.normalized(b.pixels)
    with torch.no_grad():
        predictions = b.logits(b.pixels).argmax(1).tolist()
    chosen = random_classes(-1, len(names), b.seeds[0])
    for pixels, image, predicted in zip(b.pixels.cpu(), images, predictions, strict=True):
        targets = [predicted, *chosen]
        some = sufficient_subsets(
            b.model,
            image.expand(len(targets), -1, -1, -1),
            torch.tensor(targets, device=image.device),
        )
        picture = (255 * pixels.permute(1, 2, 0).numpy()).round().astype(np.uint8)
        rows.append(
            [
                picture,
                *(
                    np.where(p.numpy()[..., None], picture, 128).astype(np.uint8)
                    for p in some.pixels
                ),
            ]
        )
        texts = [
            f"{s:.0%} of pixels" if f else "none found"
            for f, s in zip(some.found, some.share, strict=True)
        ]
        captions.append([names[predicted], *texts])
    figure(rows, ["image", "predicted", *(names[c] for c in chosen)], captions, path)
