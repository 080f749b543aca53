"""Image and mask together onto the model's grid. A mask is float `[1, H, W]` in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import str_to_interp_mode
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import Compose, v2

from refocus.data.images import mask_of, opaque, read_image
from refocus.errors import InputError
from refocus.records import Sample
from refocus.vit.inputs import check_flag, check_model, shown
from refocus.vit.loading import preprocessing

_TRAIN_MARGIN = (
    256 / 224
)  # the paper resizes to 256 before it crops 224; the same margin serves every input size


def eval_image(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    """The preprocessing that a model was evaluated with, as its library does it.

    Args:
        model: from `refocus.load`, or a module that carries timm's `pretrained_cfg`.

    Returns:
        A function: PIL image -> normalized floats `[3, H, W]` of the model's input size.
        `[None]` adds the batch that a model takes.

    Raises:
        InputError: `model` is no module. The function: its argument is no PIL image, or one of
            more than 8 bits a channel.

    Examples:
        >>> import refocus
        >>> from PIL import Image
        >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
        >>> pixels = refocus.eval_image(model)(Image.new("RGB", (300, 200)))
        >>> list(pixels.shape)
        [3, 224, 224]
    """
    check_model(model)
    return _OfPictures(create_transform(**preprocessing(model), is_training=False).transforms)


class _OfPictures(Compose):
    """Steps that a picture of any mode goes through; floats, already RGB, as they are."""

    def __call__(self, image: Any) -> Tensor:
        pixels: Tensor = super().__call__(_rgb(image))
        return pixels

    def __repr__(self) -> str:
        return repr(Compose(self.transforms))  # kept beside records, to compare


def _rgb(image: Any) -> Any:
    if isinstance(image, Tensor) and image.is_floating_point():
        return image
    if not isinstance(image, Image.Image):
        raise InputError(
            f"image: {shown(image)}; must be a PIL image, as refocus.read_image(FILE) returns"
        )
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"image: a PIL image of mode {image.mode}, whose white is not known; must have 8 bits "
            "a channel, as refocus.read_image(FILE) returns"
        )
    return image if image.mode == "RGB" else opaque(image)


_HALF = (0.5, 0.5, 0.5)
PAPER_SCALE = {"mean": _HALF, "std": _HALF}  # of the published code, for every model
_PAPER = {
    "interpolation": "bilinear",
    "crop_pct": 224 / 256,
    "crop_mode": "center",
    **PAPER_SCALE,
}


def paper_image(model: nn.Module) -> Callable[[Image.Image], Tensor]:
    """The published code's evaluation transform, for comparison with the paper's tables.

    At the model's input size: shorter side to 256/224 of it (bilinear), centre crop, mean = std =
    0.5 for every model. PIL image -> `[3, H, W]`.
    """
    transform: Callable[[Image.Image], Tensor] = create_transform(
        **{**preprocessing(model), **_PAPER}, is_training=False
    )
    return transform


def scale_of(
    model: nn.Module, protocol: str = "standard"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel by which a protocol normalizes what a model sees."""
    config = {**preprocessing(model), **(PAPER_SCALE if protocol == "paper" else {})}
    return tuple(config["mean"]), tuple(config["std"])


def _resized(inpt: Any, size: list[int], interpolation: v2.InterpolationMode) -> Any:
    """An image by its interpolation; a mask by the nearest centre of a pixel.

    torchvision's own `Mask` takes the nearest corner, which is half a pixel off the image.
    """
    if not isinstance(inpt, tv_tensors.Mask):
        return v2.functional.resize(inpt, size, interpolation)
    values = inpt.as_subclass(Tensor)
    exact = v2.InterpolationMode.NEAREST_EXACT
    return tv_tensors.Mask(v2.functional.resize_image(values, size, exact))


class _Resize(v2.Transform):
    """Both sides, or the shorter one of a single number."""

    def __init__(self, size: list[int], interpolation: v2.InterpolationMode) -> None:
        super().__init__()
        self.size, self.interpolation = size, interpolation

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return _resized(inpt, self.size, self.interpolation)


class _Cover(v2.Transform):
    """Keep the aspect ratio and just cover a non-square target, as timm's evaluation does."""

    def __init__(self, target: list[int], interpolation: v2.InterpolationMode) -> None:
        super().__init__()
        self.target, self.interpolation = target, interpolation

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        sides = v2.functional.get_size(inpt)
        ratio = min(side / wanted for side, wanted in zip(sides, self.target, strict=True))
        return _resized(inpt, [round(side / ratio) for side in sides], self.interpolation)


class _Bilinear(nn.Module):
    """Move and resize a mask as the image, so with its interpolation."""

    def __init__(self, steps: v2.Transform) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, image: Any, *masks: Tensor) -> Any:
        if not masks:
            return self.steps(image)
        values = [tv_tensors.Image(mask.as_subclass(Tensor).float()) for mask in masks]
        image, *moved = self.steps(image, *values)
        return image, *(tv_tensors.Mask(mask) for mask in moved)


def joint_transform(
    model: nn.Module, *, train: bool, flip: float = 0.5, protocol: str = "standard"
) -> v2.Transform:
    """PIL image and `tv_tensors.Mask` together -> normalized `[3, H, W]` and mask `[1, H, W]`.

    The mask is resized by nearest neighbour of the pixels' centres, soft values stay.

    train: resize both sides, random crop, flip (paper Section 4). Otherwise the model's own
        evaluation crop. protocol: `paper` takes the published code's interpolation, crop and mean =
        std = 0.5 in place of the model's own, and resizes the mask bilinearly, which softens its
        edges.

    Raises:
        InputError: `train` is neither True nor False, or `flip` no probability.
    """
    train = check_flag("train", train)
    if not isinstance(flip, Real) or not 0 <= flip <= 1:
        raise InputError(f"‹flip› {flip}: must be a number between 0 and 1")
    config = {**preprocessing(model), **(_PAPER if protocol == "paper" else {})}
    size = tuple(config["input_size"][1:])
    interpolation = v2.InterpolationMode(str_to_interp_mode(config["interpolation"]).value)
    if train:
        larger = [round(side * _TRAIN_MARGIN) for side in size]
        steps = [
            _Resize(larger, interpolation),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(flip),
        ]
    else:
        scaled = [math.floor(side / config["crop_pct"]) for side in size]
        squash, square = config["crop_mode"] == "squash", scaled[0] == scaled[1]
        shorter = _Resize(scaled[:1], interpolation)
        cover = shorter if square else _Cover(scaled, interpolation)
        steps = [_Resize(scaled, interpolation) if squash else cover, v2.CenterCrop(size)]
    if protocol == "paper":
        steps = [_Bilinear(v2.Compose(steps))]
    return v2.Compose(
        [
            *steps,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(config["mean"], config["std"]),
        ]
    )


class _Drawn(TorchFunctionMode):
    """Within it this thread's transforms draw from a seed of their own.

    torch's own generator is that of all threads, which would draw from one another's seeds.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        own = {"generator": self.generator, "device": "cpu"} if func in _DRAWS else {}
        return func(*args, **{**(kwargs or {}), **own})


_DRAWS = (torch.rand, torch.randint)  # all that `joint_transform` draws by


class MaskedImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Samples as (image `[3, H, W]`, mask `[1, H, W]`, label).

    The random crop of a sample follows from (seed, epoch, position) alone, so a resumed run, or one
    split over processes, sees the same crops as an uninterrupted one. Set `epoch` before each pass.
    """

    def __init__(self, samples: list[Sample], transform: v2.Transform, seed: int = 0) -> None:
        self.samples, self.transform, self.seed, self.epoch = samples, transform, seed, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        sample = self.samples[position]
        image = read_image(sample.image)
        mask = tv_tensors.Mask(mask_of(sample, image))
        draw = np.random.SeedSequence([self.seed, self.epoch, position]).generate_state(1)
        with _Drawn(int(draw[0])):
            pixels, mask = self.transform(image, mask)
        return pixels.as_subclass(Tensor), mask.as_subclass(Tensor).float(), sample.label
