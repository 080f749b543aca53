"""What a study is asked for, checked before anything is opened. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from refocus import fingerprints, references
from refocus.errors import InputError
from refocus.settings import (
    Count,
    PathText,
    Positive,
    Reference,
    Seed,
    Text,
    Workers,
    about,
    check,
)

_ONLY_ON = (
    "model",
    "names",
    "order",
    "masks",
    "automatic_masks",
    "shifts",
)  # a TOML file names these itself
_NOT_OF_DATA = ("mask_polarity", "most", "maps")  # have a default, and no part in the TOML file


@dataclass(frozen=True)
class StudySettings:
    """On what to run a study, and how each of its models is tuned.

    Raises:
        InputError: a value that is not legal, neither or both of `data` and `on`, or settings that
            belong to the other one of them.
    """

    data: Annotated[
        PathText | None, about("TOML file that names the paper's data sets (docs/studies.md).")
    ] = None
    on: Annotated[
        PathText | None,
        about("Your own images: one ImageFolder, or a folder with train/, test/ and perhaps val/."),
    ] = None
    model: Annotated[
        tuple[Reference, ...],
        about(
            "With ‹on›: timm name, hf:ID, torchvision:NAME, or the folder of a model or of a "
            "finished run."
        ),
    ] = ()
    names: Annotated[
        Text | None,
        about(
            "With ‹on›: class names in the order of the model's outputs, a file with one per line."
        ),
    ] = None
    order: Annotated[
        Literal["natural", "string"] | None,
        about("With ‹on›: how class folders name the outputs of a model without names."),
    ] = None
    masks: Annotated[
        PathText | None, about("With ‹on›: masks made by people, laid out as the images.")
    ] = None
    automatic_masks: Annotated[
        PathText | None, about("With ‹on›: masks of `refocus masks`, laid out as the images.")
    ] = None
    mask_polarity: Annotated[
        Literal["ask", "keep", "invert"],
        about("With ‹on›: ask stops if most masks seem to mark the background."),
    ] = "ask"
    models: Annotated[
        tuple[Text, ...],
        about("With ‹data›: only this model of the paper."),
    ] = ()
    protocol: Annotated[
        Literal["standard", "paper"] | None,
        about(
            "How models are tuned and measured (docs/design.md). Default: paper with ‹data›, "
            "standard with ‹on›."
        ),
    ] = None
    epochs: Annotated[Count | None, about("Epochs of every run. Default: the paper's 50.")] = None
    classes: Annotated[
        Count | None,
        about("Number of classes to train on. Default: half of them, the paper's 500."),
    ] = None
    rates: Annotated[
        dict[str, Positive],
        about("Learning rate of an objective instead of its own."),
    ] = field(default_factory=dict)
    select: Annotated[
        Literal["best", "last"],
        about("Epoch to keep: best has the lowest validation loss, as in the paper."),
    ] = "best"
    val_images: Annotated[
        Count | None, about("Maximum number of validation images after each epoch.")
    ] = None
    most: Annotated[
        Annotated[int, Meta(ge=2)],
        about("With ‹on›: test images of each level of location, rotation and size."),
    ] = 100
    shifts: Annotated[
        tuple[Literal["mixed-rand", "location", "rotation", "size"], ...],
        about("With ‹on›: shift to make of the test images. Default: all four."),
    ] = ()
    maps: Annotated[
        Annotated[int, Meta(ge=2)],
        about("With ‹on›: test images for the maps (table3, figure1)."),
    ] = 200
    precision: Annotated[Literal["fp32", "bf16"], about("Number format in training.")] = "fp32"
    workers: Workers = "auto"
    seed: Annotated[Seed, about("Seed of all random choices.")] = 0
    seeds: Annotated[
        Count | None,
        about(
            "Number of draws of each row, from ‹seed› on; mean, deviation and interval are shown. "
            "Default: 1; table8 and table9, which draw the training classes, 3."
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        about("Where to tune and measure; auto uses a GPU if there is one."),
    ] = "auto"

    def __post_init__(self) -> None:
        check(self)
        if (self.data is None) == (self.on is None):
            raise InputError(
                "‹data› or ‹on›: give one of them, the paper's data sets or your own images"
            )
        if self.data is not None:
            self._refuse_beside_data()
        else:
            self._refuse_beside_on()

    def _refuse_beside_data(self) -> None:
        for name in _ONLY_ON:
            if given := getattr(self, name):
                shown = given[0] if isinstance(given, tuple) else given
                raise InputError(
                    f"‹{name}› {shown}: only with ‹on›; ‹data› names models and masks in its file"
                )
        for name in _NOT_OF_DATA:
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise InputError(f"‹{name}› {value}: only with ‹on›")

    def _refuse_beside_on(self) -> None:
        if self.models:
            raise InputError(f"‹models› {self.models[0]}: only with ‹data›")
        if not self.model:
            raise InputError("‹model›: missing; ‹on› needs your model")
        if self.masks is None and self.automatic_masks is None:
            raise InputError(
                "‹masks›: missing; a study needs masks, and `refocus masks` makes some for "
                "‹automatic_masks›"
            )

    @property
    def mask_folders(self) -> dict[str, Path]:
        """Kind of mask -> folder, of the user's own."""
        given = (("annotated", self.masks), ("unsupervised", self.automatic_masks))
        return {kind: Path(path).expanduser().resolve() for kind, path in given if path}

    @property
    def tuning(self) -> dict[str, Any]:
        """Fields of the recipe of every run, and `rates` by objective."""
        names = (
            "protocol",
            "epochs",
            "classes",
            "val_images",
            "precision",
            "workers",
            "seed",
            "device",
        )
        given = {name: getattr(self, name) for name in (*names, "select", "rates")}
        return {name: value for name, value in given.items() if value is not None} | {
            "check_images": 1
        }

    @property
    def references(self) -> dict[str, str]:
        """Name of each of the user's own models -> its reference, and how its outputs are named."""
        found: dict[str, str] = {}
        for model in self.model:
            reference = references.with_names(str(model), names=self.names, order=self.order)
            plain = references.folder_of(reference).name
            others = (f"{plain}-{number}" for number in count(len(found) + 1))
            name = next(name for name in chain([plain], others) if name not in found)
            found[name] = reference
        return found

    def kept(self, models: Sequence[list[str]] = ()) -> dict[str, Any]:
        """What all studies of one folder must agree on, as its `settings.json` holds it.

        models: what each of the user's own models is (`refocus.vit.loading.identity`).
        """
        tuning = {k: v for k, v in self.tuning.items() if k not in ("workers", "device")}
        read = [path for path in (self.on, self.masks, self.automatic_masks) if path]
        files = [fingerprints.of_tree(Path(path)) for path in read]
        return {
            **tuning,
            "data": _resolved(self.data),
            "on": _resolved(self.on),
            # of one its own, as earlier versions wrote it
            "model": models[0] if len(models) == 1 else list(models) or None,
            "mask_polarity": self.mask_polarity,
            "masks": _resolved(self.masks),
            "automatic_masks": _resolved(self.automatic_masks),
            "most": self.most,
            "shift": list(self.shifts) or None,
            # the default as earlier versions wrote it
            **({"maps": self.maps} if self.maps != type(self).maps else {}),
            **({"files": files} if files else {}),  # with `data` as earlier versions wrote it
        }


def _resolved(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().resolve())
