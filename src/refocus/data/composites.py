"""One object on one background: the compositions that shifts are made of.

Images are PIL RGB, a mask is float `[1, H, W]` in [0, 1] as `images.read_mask` gives it.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from refocus.data.swaps import fill_object, taken_out

_BLUR = 1.0  # pixels: standard deviation of the blend at an object's edge
_SOFT = 0.1  # of the shorter side: standard deviation with which a background is blurred away
_SMALLEST = 0.5  # of its size, an object that is moved


def feather(mask: Tensor) -> Tensor:
    """Soften the edge inwards, `[1, H, W]`.

    Outside stays 0, so that nothing of the old background comes along.
    """
    return torch.minimum(mask, v2.functional.gaussian_blur(mask, [7, 7], [_BLUR, _BLUR]))


def cut_out(image: Image.Image, mask: Tensor) -> Image.Image:
    """The object alone, RGBA, of the size of its image."""
    cut = image.convert("RGBA")
    cut.putalpha(_alpha(feather(mask)))
    return cut


def _alpha(mask: Tensor) -> Image.Image:
    """A mask as the opacity of a picture."""
    return Image.fromarray((255 * mask[0].numpy()).round().astype(np.uint8))


def without_object(image: Image.Image, mask: Tensor) -> Image.Image:
    """The background with the object and a margin filled from what surrounds it.

    The margin matters: masks are often a little too tight, and the rim of the object that they
        leave tells its outline (docs/evaluation.md has what that did to only-bg). Where the mask is
        all of the image, black is left.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    filled = fill_object(pixels, taken_out(mask)[None])[0].permute(1, 2, 0)
    return Image.fromarray((255 * filled.clamp(0, 1)).round().byte().numpy())


@dataclass(frozen=True)
class Scene:
    """An image and its mask, taken apart once for everything that is composed of them."""

    image: Image.Image
    mask: Tensor

    @cached_property
    def cut(self) -> Image.Image:
        """The object alone, RGBA."""
        return cut_out(self.image, self.mask)

    @cached_property
    def ground(self) -> Image.Image:
        """The background without the object."""
        return without_object(self.image, self.mask)


def on_black(scene: Scene) -> Image.Image:
    """The object on black."""
    return _over(scene.cut, Image.new("RGB", scene.image.size))


def silhouette(scene: Scene) -> Image.Image:
    """The background with the object blacked out: what is left of the object is its outline.

    By the mask itself: the softened edge of `cut` lies within the object and would show its rim.
    """
    canvas = scene.image.copy()
    canvas.paste((0, 0, 0), (0, 0), _alpha(scene.mask))
    return canvas


def on_blur(scene: Scene) -> Image.Image:
    """The object on its own background, blurred so far that no thing in it can be told."""
    radius = _SOFT * min(scene.image.size)
    return _over(scene.cut, scene.ground.filter(ImageFilter.GaussianBlur(radius)))


def on_plain(scene: Scene) -> Image.Image:
    """The object on a plain colour, drawn by the image's pixels: always the same for an image."""
    red, green, blue = (int(value) for value in _draw(scene.image).integers(0, 256, size=3))
    return _over(scene.cut, Image.new("RGB", scene.image.size, (red, green, blue)))


def moved(scene: Scene) -> Image.Image:
    """The object elsewhere on its own background and half to all of its size.

    Place and size are drawn by the image's pixels; the box of the object stays within the image.
    """
    rng, image = _draw(scene.image), scene.image
    left, top, right, bottom = _box(scene.mask)
    scale = float(rng.uniform(_SMALLEST, 1))
    sides = scale * (right - left) / image.width, scale * (bottom - top) / image.height
    x, y = (float(rng.uniform(side / 2, 1 - side / 2)) for side in sides)
    return placed(scene, scene.ground, area=sides[0] * sides[1], centre=(x, y), angle=0)


def _draw(image: Image.Image) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(image.tobytes()))


def fitted(background: Image.Image, image: Image.Image) -> Image.Image:
    """A background scaled and centrally cropped to the size of an image."""
    return ImageOps.fit(background, image.size, Image.Resampling.BICUBIC)


def on_background(scene: Scene, background: Image.Image) -> Image.Image:
    """The object where it was, on another background cropped to the image's size."""
    return _over(scene.cut, fitted(background, scene.image))


def placed(
    scene: Scene,
    background: Image.Image,
    *,
    area: float,
    centre: tuple[float, float],
    angle: float,
) -> Image.Image:
    """The object anew on another background (SI-Score, Djolonga et al., CVPR 2021).

    Args:
        scene: where the object is.
        background: an image of any size, fitted to that of the scene.
        area: the object's bounding box, before rotation, as a share of the image.
        centre: of that box as a share of width and height, from the left and from the top.
        angle: degrees, counter-clockwise.
    """
    canvas = fitted(background, scene.image)
    cut = scene.cut.crop(_box(scene.mask))
    scale = math.sqrt(area * canvas.width * canvas.height / (cut.width * cut.height))
    cut = cut.resize(
        (max(1, round(scale * cut.width)), max(1, round(scale * cut.height))),
        Image.Resampling.BICUBIC,
    )
    cut = cut.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    corner = (
        round(centre[0] * canvas.width - cut.width / 2),
        round(centre[1] * canvas.height - cut.height / 2),
    )
    canvas.paste(cut, corner, cut)
    return canvas


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the object.

    Where the mask is above one half, or above 0 where it nowhere is.
    """
    ys, xs = np.nonzero(mask[0].numpy() > (0.5 if mask.max() > 0.5 else 0))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _over(cut: Image.Image, background: Image.Image) -> Image.Image:
    canvas = background.copy()
    canvas.paste(cut, (0, 0), cut)
    return canvas
