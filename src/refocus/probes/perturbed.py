"""Probes that give perturbed images (`Views`), of which `batch.answers` takes top-1.

Each is a few lines. Where each protocol comes from and where ours departs stands in docs/probes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from refocus.data import styles
from refocus.data.images import read_image
from refocus.errors import InputError
from refocus.probes.batch import Batch, Options, Views
from refocus.probes.results import Level
from refocus.probes.tools import attacks, corruptions
from refocus.probes.tools import perturbations as change
from refocus.vit.loading import preprocessing

# --- adversarial ---------------------------------------------------------------------------------

BUDGETS = (0, 0.25, 0.5, 1, 2, 4)  # of 255
AREAS = (0, 0.005, 0.01, 0.02, 0.05)


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
            pixels = (
                change.occlude(b.pixels, b.grid, order, share, b.covered) if share else b.pixels
            )
            yield series, pixels


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
    images = [s.image for s in b.samples]
    for name, files in _corrupted(b.options.imagenet_c, b.root, images):
        yield name, _squeezed(files, b)


def _corrupted(
    published: Path, root: Path, images: Sequence[Path]
) -> Iterator[tuple[str, list[Path]]]:
    """The same images in each corruption and severity; root: of those that are given."""
    for name, folder in corruptions.published(published).items():
        for severity in corruptions.SEVERITIES:
            yield name, [folder / str(severity) / file.relative_to(root) for file in images]


def refuse_missing(root: Path, images: Sequence[Path], options: Options) -> None:
    """Every image must be there in each corruption and severity.

    Raises:
        InputError: one is not.
    """
    assert options.imagenet_c is not None
    for _, files in _corrupted(options.imagenet_c, root, images):
        if gone := [file for file in files if not file.is_file()]:
            raise InputError(
                f"‹imagenet_c› {gone[0]}: missing, as {len(gone)} of {len(files)} there are; each "
                "image must be in all corruptions and severities"
            )


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
    """Textures and colours moved to those of a style image.

    By the amplitudes of the spectrum, and by AdaIN where its weights are given.
    """
    pictures = _squeezed(_drawn_styles(b.options, b.seeds), b)
    ways: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
        styles.FOURIER: styles.by_amplitudes
    }
    if b.options.adain is not None:
        ways[styles.ADAIN] = styles.adain(b.options.adain)
    for series, way in ways.items():
        for strength in STRENGTHS:
            yield series, way(b.pixels, pictures, strength) if strength else b.pixels


def _drawn_styles(options: Options, seeds: Sequence[int]) -> list[Path]:
    """The picture whose style each image takes."""
    files = options.style_images
    return [files[seed % len(files)] for seed in seeds]


def refuse_unreadable_styles(options: Options, seeds: Sequence[int]) -> None:
    """Every picture that an image takes its style from can be read.

    Raises:
        InputError: one cannot.
    """
    for file in sorted(set(_drawn_styles(options, seeds))):
        try:
            read_image(file)
        except InputError as error:
            raise InputError(f"‹styles› {error.marked}") from error
