"""Images, masks and labels from folders; the few-shot selection; joint transforms. A mask is float `[1, H, W]` in [0, 1]."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.transforms import str_to_interp_mode
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from refocus.errors import InputError
from refocus.models import class_count, folder_names, preprocessing
from refocus.records import Sample

log = logging.getLogger("refocus")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # by name; the content decides how it is read


_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)  # Pillow's own


# --- one file -----------------------------------------------------------------------------------------------------------


def read_image(path: Path) -> Image.Image:
    """An upright RGB image; EXIF rotation is applied, 16-bit greyscale keeps its range, of an animation the first frame.

    Raises:
        InputError: missing, truncated, not an image, or so large that decoding it could exhaust memory.
    """
    try:
        return _eight_bit(_upright(path)).convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error


def _upright(path: Path) -> Image.Image:
    with warnings.catch_warnings(), Image.open(path) as file:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        file.load()
        return ImageOps.exif_transpose(file)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey to white where it converts; scale it instead."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray((values / (257 if values.max() > 255 else 1)).round().clip(0, 255).astype(np.uint8))
    return image


def read_mask(path: Path, image: Image.Image | None = None) -> Tensor:
    """A foreground mask `[1, H, W]` in [0, 1]: PNG with 0/255 (values between are soft), or 0/1.

    Raises:
        InputError: unreadable, of another size than `image`, without any foreground or background, or with object ids.
    """
    try:
        opened = _upright(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a mask ({error})") from error
    indexed = opened.mode == "P"  # of a palette the indices count, not their colours
    values = np.asarray(opened if indexed else _eight_bit(opened).convert("L"), dtype=np.float32)
    if 1 < values.max() < 128 or (indexed and values.max() > 1):
        raise InputError(
            f"{path}: its values look like object ids (up to {values.max():.0f}); legal are 0/255 with soft values between, or 0/1"
        )
    mask = torch.from_numpy(values / (255 if values.max() > 1 else 1))[None]
    if image is not None and mask.shape[1:] != (image.height, image.width):
        raise InputError(
            f"{path}: the mask is {mask.shape[2]}x{mask.shape[1]} pixels, its image {image.width}x{image.height}; both must agree"
        )
    if mask.max() == 0 or mask.min() == 1:
        raise InputError(f"{path}: the mask is all {'background' if mask.max() == 0 else 'foreground'}; it must hold both")
    return mask


# --- a folder -----------------------------------------------------------------------------------------------------------


def class_folders(root: Path, option: str) -> dict[str, list[Path]]:
    """class name -> sorted image files of an ImageFolder (`root/class/file`)."""
    if not root.is_dir():
        raise InputError(f"{option} {root}: no such folder")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{option} {root}: holds no class folders; images are expected as {root}/CLASS/FILE")
    found = {f.name: sorted(p for p in f.iterdir() if p.suffix.lower() in EXTENSIONS) for f in folders}
    if empty := [name for name, files in found.items() if not files]:
        raise InputError(f"{option} {root / empty[0]}: class folder without images (legal: {' '.join(EXTENSIONS)})")
    return found


def image_files(root: Path, option: str = "IMAGES") -> list[Path]:
    """Sorted image files of a folder: those in its class folders, and those that lie in it directly."""
    if not root.is_dir():
        raise InputError(f"{option} {root}: no such folder")
    flat = sorted(p for p in root.iterdir() if p.is_file() and p.suffix.lower() in EXTENSIONS)
    if flat and not any(p.is_dir() and not p.name.startswith(".") for p in root.iterdir()):
        return flat
    return flat + [file for files in class_folders(root, option).values() for file in files]


def scan(root: str | Path, model: nn.Module, *, masks: str | Path | None = None, option: str = "--images") -> list[Sample]:
    """All images of a folder with the model's labels, and with their masks where a mask folder is given.

    Raises:
        InputError: a class folder that the model does not know, or a mask that belongs to no image.
    """
    root = Path(root).expanduser()
    folders = class_folders(root, option)
    if class_count(model) < 1:
        raise InputError("the model has no classifier head (0 classes); give a classifier")
    names = folder_names(model)
    if names is None:
        if len(folders) != class_count(model):
            raise InputError(
                f"{option} {root}: the model carries no class names and has {class_count(model)} outputs, but there are "
                f"{len(folders)} class folders; give one folder for each output"
            )
        names = list(folders)
        log.warning("the model carries no class names: its outputs are taken as the folders of %s in sorted order", root)
    index = {name: i for i, name in enumerate(names)}
    if unknown := [name for name in folders if name not in index]:
        known = ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
        raise InputError(f"{option} {root / unknown[0]}: the model knows no class {unknown[0]!r}; it knows {known}")
    if absent := [name for name in names if name not in folders]:
        log.info("%s: no folder for %d of the model's %d classes (%s)", root, len(absent), len(names), ", ".join(absent[:3]))
    found = {name: {} for name in folders} if masks is None else _mask_files(Path(masks).expanduser(), folders, option)
    return [Sample(file, index[name], found[name].get(file.stem)) for name, files in folders.items() for file in files]


def folder_samples(root: Path, masks: Path) -> list[Sample]:
    """All images of a folder with their masks, labelled by the position of their class folder; no model is asked."""
    folders = class_folders(root.expanduser(), "IMAGES")
    found = _mask_files(masks.expanduser(), folders, "--images")
    numbered = enumerate(folders.items())
    return [Sample(file, label, found[name].get(file.stem)) for label, (name, files) in numbered for file in files]


def refuse_shared_stems(folders: dict[str, list[Path]]) -> None:
    """a.jpg and a.png of one class would share the mask a.png."""
    for files in folders.values():
        stems = Counter(f.stem for f in files)
        if doubled := [f for f in files if stems[f.stem] > 1]:
            raise InputError(f"{doubled[0]} and {doubled[1].name}: would share the mask {doubled[0].stem}.png; rename one")


def _mask_files(root: Path, folders: dict[str, list[Path]], option: str) -> dict[str, dict[str, Path]]:
    """class name -> image stem -> mask file; a mask without its image is an error (a misspelt name would be lost)."""
    option = option.replace("images", "masks") if "images" in option else f"{option}-masks"
    if not root.is_dir():
        raise InputError(f"{option} {root}: no such folder")
    if strangers := sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in folders):
        log.info("%s: masks of %d classes without images are not read (%s)", root, len(strangers), ", ".join(strangers[:3]))
    refuse_shared_stems(folders)
    found = {}
    for name, files in folders.items():
        found[name] = {p.stem: p for p in sorted((root / name).glob("*.png"))}
        if orphans := sorted(set(found[name]) - {f.stem for f in files}):
            raise InputError(f"{option} {found[name][orphans[0]]}: mask without an image of that name in class {name!r}")
    return found


def usable(samples: list[Sample], count: int, *, skip_bad: bool) -> list[Sample]:
    """The first `count` samples whose image and mask can be used together.

    Raises:
        InputError: the first one that cannot, unless `skip_bad`; then it is named in the log and left out.
    """
    chosen: list[Sample] = []
    for sample in samples:
        if len(chosen) == count:
            break
        try:
            if sample.mask is None:
                raise InputError(
                    f"{sample.image}: image without a mask (expected {sample.image.parent.name}/{sample.image.stem}.png)"
                )
            read_mask(sample.mask, read_image(sample.image))
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{error}; mend it, or leave such images out with --skip-bad") from error
            log.warning("left out: %s", error)
            continue
        chosen.append(sample)
    return chosen


# --- few shots ----------------------------------------------------------------------------------------------------------


def pick_classes(samples: list[Sample], count: int | None, class_seed: int | None) -> list[int]:
    """Labels to train on: the first `count` in listing order, or after a shuffle by `class_seed`; None: half of them."""
    labels = list(dict.fromkeys(s.label for s in samples))  # listing order, as the paper takes "the first 500"
    count = max(1, len(labels) // 2) if count is None else count
    if count > len(labels):
        raise InputError(f"--classes {count}: the image folder has only {len(labels)} classes")
    if class_seed is not None:
        labels = [labels[i] for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(class_seed))]
    return labels[:count]


def pick_shots(
    samples: list[Sample], labels: list[int], shots: int, seed: int, *, skip_bad: bool, fewer: bool = False
) -> list[Sample]:
    """`shots` usable samples of each label, drawn by `seed`. fewer: all of a label that has less (one at least)."""
    of_label: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        of_label[sample.label].append(sample)
    chosen = []
    for label in labels:
        mine = shuffled(of_label[label], seed)
        found = usable(mine, shots, skip_bad=skip_bad)
        if len(found) < shots:
            few = f"--shots {shots}: class {mine[0].image.parent.name!r} has only {len(found)} usable images"
            if not found or not fewer:
                raise InputError(f"{few}; lower it, add some, or take fewer of such a class with --fewer")
            log.info("%s; all of them are taken", few)
        chosen += found
    return chosen


def spread(samples: list[Sample], count: int, seed: int, *, skip_bad: bool) -> list[Sample]:
    """At most `count` usable samples, spread over their classes: the first of each class, then the second of each, ..."""
    turn: Counter[int] = Counter()
    keyed = []
    for position, sample in enumerate(shuffled(samples, seed)):
        keyed.append((turn[sample.label], position, sample))
        turn[sample.label] += 1
    return usable([s for _, _, s in sorted(keyed, key=lambda k: k[:2])], count, skip_bad=skip_bad)


def shuffled(samples: list[Sample], seed: int) -> list[Sample]:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return [samples[i] for i in order]


# --- transforms ---------------------------------------------------------------------------------------------------------

_TRAIN_MARGIN = 256 / 224  # the paper resizes to 256 before it crops 224; the same margin serves every input size


def eval_image(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    """The transform that timm evaluates this model with: PIL image -> `[3, H, W]`."""
    return create_transform(**preprocessing(model), is_training=False)


_HALF = (0.5, 0.5, 0.5)
_PAPER = {"interpolation": "bilinear", "crop_pct": 224 / 256, "crop_mode": "center", "mean": _HALF, "std": _HALF}


def paper_image(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    """The published code's evaluation transform at the model's input size, for comparison with the paper's tables: shorter side
    to 256/224 of it (bilinear), centre crop, mean = std = 0.5 for every model. PIL image -> `[3, H, W]`.
    """
    return create_transform(**{**preprocessing(model), **_PAPER}, is_training=False)


class _Cover(v2.Transform):
    """Keep the aspect ratio and just cover a non-square target, as timm's evaluation does."""

    def __init__(self, target: list[int], interpolation: v2.InterpolationMode) -> None:
        super().__init__()
        self.target, self.interpolation = target, interpolation

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        sides = v2.functional.get_size(inpt)
        ratio = min(side / wanted for side, wanted in zip(sides, self.target, strict=True))
        return v2.functional.resize(inpt, [round(side / ratio) for side in sides], self.interpolation)


def joint_transform(model: nn.Module, *, train: bool, flip: float = 0.5, protocol: str = "standard") -> v2.Transform:
    """PIL image and `tv_tensors.Mask` together -> normalized `[3, H, W]` and mask `[1, H, W]` (nearest, soft values stay).

    train: resize both sides, random crop, flip (paper Section 4). Otherwise the model's own evaluation crop.
    protocol: `paper` takes the published code's interpolation, crop and mean = std = 0.5 in place of the model's own.
    """
    config = {**preprocessing(model), **(_PAPER if protocol == "paper" else {})}
    size = tuple(config["input_size"][1:])
    interpolation = v2.InterpolationMode(str_to_interp_mode(config["interpolation"]).value)
    if train:
        larger = [round(side * _TRAIN_MARGIN) for side in size]
        steps = [v2.Resize(larger, interpolation), v2.RandomCrop(size), v2.RandomHorizontalFlip(flip)]
    else:
        scaled = [math.floor(side / config["crop_pct"]) for side in size]
        squash, square = config["crop_mode"] == "squash", scaled[0] == scaled[1]
        cover = _Cover(scaled, interpolation) if not square else v2.Resize(scaled[0], interpolation)
        steps = [v2.Resize(scaled, interpolation) if squash else cover, v2.CenterCrop(size)]
    return v2.Compose([*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config["mean"], config["std"])])


class MaskedImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Samples as (image `[3, H, W]`, mask `[1, H, W]`, label).

    The random crop of a sample follows from (seed, epoch, position) alone, so a resumed run, or one split over processes,
    sees the same crops as an uninterrupted one. Set `epoch` before each pass.
    """

    def __init__(self, samples: list[Sample], transform: v2.Transform, seed: int = 0) -> None:
        self.samples, self.transform, self.seed, self.epoch = samples, transform, seed, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        sample = self.samples[position]
        image = read_image(sample.image)
        assert sample.mask is not None  # usable() let it through
        mask = tv_tensors.Mask(read_mask(sample.mask, image))
        draw = np.random.SeedSequence([self.seed, self.epoch, position]).generate_state(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(draw[0]))
            pixels, mask = self.transform(image, mask)
        return pixels.as_subclass(Tensor), mask.as_subclass(Tensor).float(), sample.label
