"""Pictures of single images, chosen by rule and never by hand.

What the model sees, its mask, and the map of each model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion
from torch import Tensor, nn
from torchvision import tv_tensors

from refocus.data.transforms import eval_image, joint_transform
from refocus.evaluation.metrics import paired
from refocus.figures.html import tile_uri
from refocus.figures.pictures import overlay, to_picture
from refocus.records import Prediction
from refocus.relevance.gae import explain
from refocus.vit.classes import names_of
from refocus.vit.loading import preprocessing

OUTLINE = (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """A picture as a data URI, with a caption and whether the prediction in it is right.

    None: there is none.
    """

    picture: str
    title: str
    caption: str
    right: bool | None = None


@dataclass(frozen=True)
class Card:
    """One image: name and true class, and its tiles."""

    name: str
    label: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Group:
    """Images of one outcome: how many, the names of those shown, and the rule.

    The best example comes first.
    """

    title: str
    rule: str
    total: int
    shown: list[str]


def outcomes(
    before: Sequence[Prediction], after: Sequence[Prediction], count: int = 4
) -> list[Group]:
    """Corrected, spoiled and unchanged images, by rule.

    The greatest change of confidence in the true class, or evenly spaced.
    """
    pairs = [(old, new) for new, old in paired(after, before)]

    def gain(pair: tuple[Prediction, Prediction]) -> float:
        old, new = pair
        return (new.true_confidence or 0) - (old.true_confidence or 0)

    def named(some: list[tuple[Prediction, Prediction]]) -> list[str]:
        return [new.image for _, new in some]

    corrected = sorted((p for p in pairs if p[1].right and not p[0].right), key=gain, reverse=True)
    spoiled = sorted((p for p in pairs if p[0].right and not p[1].right), key=gain)
    right = [p for p in pairs if p[0].right and p[1].right]
    wrong = [p for p in pairs if not p[0].right and not p[1].right]
    most = "the {} with the greatest {} of confidence in the true class"
    return [
        Group("Corrected", most.format(count, "rise"), len(corrected), named(corrected[:count])),
        Group("Spoiled", most.format(count, "fall"), len(spoiled), named(spoiled[:count])),
        Group(
            "Right before and after",
            "evenly spaced in the listing",
            len(right),
            named(_evenly(right, count // 2)),
        ),
        Group(
            "Wrong before and after",
            "evenly spaced in the listing",
            len(wrong),
            named(_evenly(wrong, count // 2)),
        ),
    ]


def _evenly(
    pairs: list[tuple[Prediction, Prediction]], count: int
) -> list[tuple[Prediction, Prediction]]:
    return (
        [
            pairs[i]
            for i in np.unique(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int))
        ]
        if pairs
        else []
    )


def tiles(
    models: dict[str, nn.Module], image: Image.Image, mask: Tensor | None, labels: Sequence[int]
) -> list[Tile]:
    """What the first model sees, the mask beside it, and each model's map of its prediction.

    The map has the mask's outline.

    mask: `[1, H, W]` of the image's size, or None. labels: the true class's index for each model.
    """
    found: list[Tile] = []
    for (title, model), label in zip(models.items(), labels, strict=True):
        config = preprocessing(model)
        if mask is None:
            pixels, inside = eval_image(model)(image), None
        else:
            pixels, shape = joint_transform(model, train=False)(image, tv_tensors.Mask(mask))
            inside = shape[0].numpy() > 0.5
        answer = explain(model, pixels[None].to(next(model.parameters()).device))
        picture = to_picture(pixels, config["mean"], config["std"])
        if not found:
            found.append(Tile(tile_uri(picture), "image", names_of(model)[label]))
            if inside is not None:
                dimmed = np.where(inside[..., None], picture, picture // 5)
                found.append(Tile(tile_uri(dimmed), "mask", "foreground"))
        guess = int(answer.targets[0])
        name = names_of(model)[guess]
        share = float(answer.logits[0].float().softmax(0)[guess])
        heat = outlined(overlay(picture, answer.relevance[0].cpu()), inside)
        found.append(Tile(tile_uri(heat), title, f"{name} ({share:.0%})", guess == label))
    return found


def answered(
    models: dict[str, nn.Module],
    seen: tuple[Tensor, np.ndarray],
    answers: Sequence[Prediction],
    names: Sequence[str],
) -> list[Tile]:
    """An image as a test set showed it, and each model's map of the answer that it gave there.

    seen: pixels `[3, H, W]` as the models took them, and the picture of these. answers: one of each
    model. names: of the classes.
    """
    pixels, picture = seen
    found = [Tile(tile_uri(picture), "image", names[answers[0].label])]
    for (title, model), answer in zip(models.items(), answers, strict=True):
        device = next(model.parameters()).device
        relevance = explain(model, pixels[None].to(device), [answer.top5[0]]).relevance[0]
        caption = f"{names[answer.top5[0]]} ({answer.confidence:.0%})"
        heat = tile_uri(overlay(picture, relevance.cpu()))
        found.append(Tile(heat, title, caption, answer.right))
    return found


def outlined(picture: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """A picture with the outline of what is `inside`, bool `[H, W]`; None: as it is."""
    if inside is None:
        return picture
    drawn = picture.copy()
    drawn[inside ^ binary_erosion(inside, iterations=1)] = OUTLINE
    return drawn
