"""The probes, each a few lines: perturbed images, or numbers.

On perturbed images (`Views`) `answers` then takes top-1; numbers are `Series`.

Where each protocol comes from and where ours departs stands in docs/probes.md. B images, L blocks,
P patches.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.data.folders import image_files
from refocus.data.images import read_image
from refocus.evaluation import cues
from refocus.evaluation.collect import softmax_shares
from refocus.figures.pictures import figure
from refocus.objectives import rotations
from refocus.probes.batch import Batch, Series, Views, attention_of_readout
from refocus.probes.results import Level
from refocus.probes.tools import attacks, corruptions
from refocus.probes.tools import perturbations as change
from refocus.probes.tools.subsets import sufficient_subsets
from refocus.probes.tools.surgery import PARTS, blocks, neighbours, without
from refocus.records import ProbeRecord
from refocus.relevance.attention import last_linear_input, limited_attention
from refocus.vit.classes import names_of
from refocus.vit.families import view
from refocus.vit.loading import preprocessing

# --- adversarial ---------------------------------------------------------------------------------

BUDGETS = (0, 0.25, 0.5, 1, 2, 4)  # of 255
AREAS = (0, 0.005, 0.01, 0.02, 0.05)
PATH_BUDGET = 1  # of 255


def fgsm(b: Batch) -> Views:
    """One step of the fast gradient sign method at each budget."""
    for budget in BUDGETS:
        yield (
            "FGSM",
            attacks.fgsm(b.model, b.logits, b.pixels, b.labels, budget / 255)
            if budget
            else b.pixels,
        )


def pgd(b: Batch) -> Views:
    """Projected gradient descent at each budget."""
    for budget in BUDGETS:
        yield (
            "PGD",
            attacks.pgd(b.model, b.logits, b.pixels, b.labels, budget / 255, b.seeds)[0]
            if budget
            else b.pixels,
        )


def patch_attack(b: Batch) -> Views:
    """PGD on the pixels of one square, of any colour."""
    for area in AREAS:
        if not area:
            yield "patch", b.pixels
            continue
        size = (b.pixels.shape[-2], b.pixels.shape[-1])
        where = change.boxes(size, area, b.seeds).to(b.pixels)
        steps = attacks.PATCH_STEPS
        yield (
            "patch",
            attacks.pgd(
                b.model, b.logits, b.pixels, b.labels, 1.0, b.seeds, steps=steps, where=where
            )[0],
        )


def pgd_path(b: Batch) -> Series:
    """The loss after each step of PGD."""
    return {
        "loss": attacks.pgd(b.model, b.logits, b.pixels, b.labels, PATH_BUDGET / 255, b.seeds)[1]
    }


# --- what is left of the image ------------------------------------------------------------------

SHARES = tuple(n / 10 for n in range(11))
HOLES = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
CELLS = (1, 2, 4, 8, 16)


def occlusion(b: Batch) -> Views:
    """Patches made black: in random order, the salient first, the salient last."""
    salient = b.saliency.cpu()
    orders = {
        "at random": change.random_order(salient.shape[1], b.seeds),
        "salient first": salient.argsort(dim=1, descending=True, stable=True),
        "salient last": salient.argsort(dim=1, stable=True),
    }
    for series, order in orders.items():
        for share in SHARES:
            yield series, change.occlude(b.pixels, b.grid, order, share) if share else b.pixels


def permutation(b: Batch) -> Views:
    """The image cut into cells that change places."""
    for count in CELLS:
        yield "shuffled", change.permute_cells(b.pixels, count, b.seeds) if count > 1 else b.pixels


def cutout(b: Batch) -> Views:
    """A black box somewhere in the image."""
    size = (b.pixels.shape[-2], b.pixels.shape[-1])
    mean = torch.tensor(preprocessing(b.model)["mean"]).view(3, 1, 1).to(b.pixels)
    for share in HOLES:
        hole = change.boxes(size, share, b.seeds).to(b.pixels)
        yield "hole", b.pixels * (1 - hole) + mean * hole if share else b.pixels


# --- the model ----------------------------------------------------------------------------------


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


# --- frequencies and corruptions ----------------------------------------------------------------

LOW = (1.5, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05)  # 1.5 lies beyond the corner: all frequencies
HIGH = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_STEPS = 4  # of the heat map, from frequency 0 to the highest
_NORM, _SIDE = 15.7, 224  # of the noise, as Yin et al. have it on ImageNet


def low_pass(b: Batch) -> Views:
    """Low frequencies alone."""
    for radius in LOW:
        yield "low-pass", change.low_pass(b.pixels, radius) if radius < 1.5 else b.pixels


def high_pass(b: Batch) -> Views:
    """High frequencies and the mean colour alone."""
    for radius in HIGH:
        yield "high-pass", change.high_pass(b.pixels, radius) if radius else b.pixels


def frequencies(model: nn.Module) -> list[Level]:
    """Half of the plane of frequencies, whose mirror is the other half.

    "row,column" in cycles per image.
    """
    height, width = preprocessing(model)["input_size"][1:]
    rows, columns = (
        np.unique(np.linspace(0, side // 2, _STEPS + 1).round().astype(int)).tolist()
        for side in (height, width)
    )
    found: list[Level] = []
    for column in columns:
        for row in rows:
            found.append(f"{row},{column}")
            if (
                0 < 2 * row < height and 0 < 2 * column < width
            ):  # elsewhere the mirror is the same wave
                found.append(f"{-row},{column}")
    return found


def fourier(b: Batch) -> Views:
    """Noise of one frequency at a time."""
    norm = _NORM * (b.pixels.shape[-2] * b.pixels.shape[-1]) ** 0.5 / _SIDE
    for level in frequencies(b.model):
        row, column = map(int, str(level).split(","))
        yield "noise", change.fourier_noise(b.pixels, row, column, norm, b.seeds)


def corruption(b: Batch) -> Views:
    """The 15 corruptions at five severities, made here."""
    pictures = [(255 * p.permute(1, 2, 0).cpu().numpy()).round().astype(np.uint8) for p in b.pixels]
    for name in corruptions.ALEXNET:
        yield name, b.pixels
        for severity in corruptions.SEVERITIES:
            made = [
                corruptions.corrupted(p, name, severity, s % 2**32)
                for p, s in zip(pictures, b.seeds, strict=True)
            ]
            yield name, torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).to(b.pixels) / 255


def imagenet_c(b: Batch) -> Views:
    """The published corrupted images."""
    assert b.options.imagenet_c is not None
    for name, folder in corruptions.published(b.options.imagenet_c).items():
        for severity in corruptions.SEVERITIES:
            files = [folder / str(severity) / s.image.relative_to(b.root) for s in b.samples]
            yield name, _squeezed(files, b)


def _squeezed(files: list[Path], b: Batch) -> Tensor:
    """Images at the model's input size without a crop.

    The published ones were cropped when they were made.
    """
    size = (b.pixels.shape[-1], b.pixels.shape[-2])
    pictures = [np.asarray(read_image(file).resize(size)) for file in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(b.pixels) / 255


# --- cues ---------------------------------------------------------------------------------------

SHAPES = ("as it is", "silhouette", "edges")
STRENGTHS = (0, 0.25, 0.5, 0.75, 1)


def shapes(b: Batch) -> Views:
    """Silhouettes and edges of the object."""
    assert b.masks is not None
    for pixels in (b.pixels, change.silhouettes(b.masks), change.edges(b.pixels, b.masks)):
        yield "object", pixels


def stylization(b: Batch) -> Views:
    """Amplitudes of the spectrum moved to those of a style image."""
    assert b.options.styles is not None
    files = _styles(b.options.styles)
    styles = _squeezed([files[seed % len(files)] for seed in b.seeds], b)
    for strength in STRENGTHS:
        yield "style", change.stylize(b.pixels, styles, strength) if strength else b.pixels


@lru_cache(maxsize=4)
def _styles(folder: Path) -> list[Path]:
    return image_files(folder, "styles")


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
        shape, texture = cues.cue(sample.image.stem)
        known = shape != texture and {shape, texture} <= set(names)
        value = (
            float(names[decision] == shape)
            if known and names[decision] in (shape, texture)
            else float("nan")
        )
        found.append(value)
    return {"decisions for the shape": torch.tensor(found)[:, None]}


# --- what the features hold ---------------------------------------------------------------------


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


def rotation_answers(records: list[ProbeRecord]) -> list[ProbeRecord]:
    """Which turns a linear head on the features tells."""
    features = np.array([row.values["features"] for row in records], dtype=np.float64)
    found = rotations.held_out(features.reshape(len(records), rotations.TURNS, -1))
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
        drawn = F.interpolate(inside, truth.shape[-2:], mode="nearest") > 0.5
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


# --- sufficient input subsets -------------------------------------------------------------------

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
