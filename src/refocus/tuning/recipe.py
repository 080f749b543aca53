"""Everything that decides a tuning run, as one frozen record; a run folder keeps it as
`recipe.json`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from refocus.errors import InputError
from refocus.outputs import read_json
from refocus.records import from_json


@dataclass(frozen=True)
class Recipe:
    """Defaults are the paper's (Table 5) unless the comment says otherwise."""

    model: str  # timm name or folder
    images: str  # ImageFolder: class/file
    masks: str  # masks/class/file-stem.png
    val: str | None = (
        None  # ImageFolder to validate on; None: images of `images` that are not trained on
    )
    val_masks: str | None = None  # masks for `val`
    objective: str = "relevance"
    weights: dict[str, float] = field(
        default_factory=dict
    )  # weights of the objective's terms; missing ones keep their default
    second_order: bool = (
        False  # also differentiate through the attention gradient (the published code does not)
    )
    temperature: float = (
        1.0  # of the confidence term; 0.65 for DeiT-B, 0.55 for DeiT-S in the published code
    )
    classes: int | None = None  # how many classes to train on; None: half of those in `images`
    class_seed: int | None = (
        None  # shuffles the classes before the first N are taken; None: listing order
    )
    shots: int = 3  # training images per class
    seed: int = 0  # which images, their order, their crops
    epochs: int = 50
    recompute: bool = False  # form attention maps anew in the backward pass: less memory, more time
    batch_size: int = 8  # over all processes together
    lr: float | str | None = (
        # None: the objective's own (the paper searches 5e-7 to 5e-6 per model). "auto": search by
        # its rule
        None
    )
    lr_range: tuple[float, float] = (5e-7, 5e-6)  # where "auto" searches
    lr_decay: float = 0.85  # factor on the rate ...
    lr_decay_every: int = 2  # ... every so many epochs
    weight_decay: float = 1e-4
    flip: float = 0.5  # chance of a left-right flip; 0 for digits or text
    select: str = (
        "best"  # which epoch to keep: the lowest validation loss, as in the paper, or the "last"
    )
    last_blocks: int | None = (
        None  # tune only so many blocks, what follows them and the classifier; None: everything
    )
    lora: int | None = None  # tune only low-rank additions of this rank, and the classifier
    # preprocessing in tuning: the model's own, or the "paper"'s (mean = std = 0.5 for all models)
    protocol: str = "standard"
    # after each epoch: at most so many images of classes not trained on (the paper has 414)
    val_images: int = 400
    # once, at the end: at most so many images of all classes, to see whether tuning did harm
    check_images: int = 400
    tolerance: float = (
        1.0  # percentage points of in-domain accuracy that tuning may cost (ours: see harm.choose)
    )
    share: float | None = (
        # of the way to the tuned weights that is kept without the rule; None: the objective's own
        None
    )
    do_no_harm: bool = True  # keep what the rule of harm.choose advises; False: `share`
    mask_score: float = (
        0.5  # masks that `refocus masks` gave a lower score are left out (docs/masks.md)
    )
    mask_polarity: str = (
        "ask"  # stop where most masks seem to mark the background; "keep" or "invert" answers
    )
    fewer: bool = (
        False  # of a class with fewer usable images than `shots` take all instead of stopping
    )
    skip_bad: bool = False  # leave out images without a usable mask instead of stopping
    precision: str = "fp32"  # or "bf16"
    device: str = "auto"
    workers: int = 0  # processes that decode images

    def __post_init__(self) -> None:
        for name, low in [
            ("shots", 1),
            ("epochs", 1),
            ("batch_size", 1),
            ("lr_decay_every", 1),
            ("val_images", 1),
            ("check_images", 1),
            ("workers", 0),
        ]:
            if getattr(self, name) < low:
                raise InputError(f"‹{name}› {getattr(self, name)}: must be at least {low}")
        if isinstance(self.lr, str) and self.lr != "auto":
            raise InputError(f"‹lr› {self.lr}: must be a number, such as 2e-6, or auto")
        object.__setattr__(self, "lr_range", tuple(self.lr_range))  # JSON gives a list
        if len(self.lr_range) != 2 or not 0 < self.lr_range[0] < self.lr_range[1] < float("inf"):
            raise InputError(
                f"‹lr_range› {self.lr_range}: must be two positive numbers, the lower first"
            )
        for name in ("lr_decay", "temperature", *(["lr"] if self.lr not in (None, "auto") else [])):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"‹{name}› {getattr(self, name)}: must be a positive number")
        for name in ("tolerance", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"‹{name}› {getattr(self, name)}: must be a number of at least 0")
        for name in ("seed", "class_seed"):
            if not 0 <= (getattr(self, name) or 0) < 2**32:
                raise InputError(f"‹{name}› {getattr(self, name)}: must be between 0 and 2**32 - 1")
        if bad := [term for term, weight in self.weights.items() if not abs(weight) < float("inf")]:
            raise InputError(f"‹weights› {bad[0]}={self.weights[bad[0]]}: must be a finite number")
        if not 0 <= self.mask_score <= 1:
            raise InputError(f"‹mask_score› {self.mask_score}: a score between 0 and 1")
        if self.share is not None and self.do_no_harm:
            raise InputError(
                "‹share›: only with ‹do_no_harm=False›; else the rule chooses the share"
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(
                f"‹share› {self.share}: must be above 0 and at most 1 (the tuned weights as they "
                "are)"
            )
        if not 0 <= self.flip <= 1:
            raise InputError(f"‹flip› {self.flip}: a probability between 0 and 1")
        for name in ("classes", "last_blocks", "lora"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"‹{name}› {getattr(self, name)}: must be at least 1")
        if self.lora and (self.last_blocks or self.weights.get("l2_sp")):
            raise InputError(
                "‹lora›: freezes the weights themselves, so ‹last_blocks› and ‹weights› l2_sp=... "
                "have nothing to act on"
            )
        for name, legal in (
            ("mask_polarity", ("ask", "keep", "invert")),
            ("select", ("best", "last")),
            ("protocol", ("standard", "paper")),
            ("precision", ("fp32", "bf16")),
            ("device", ("auto", "cpu", "cuda", "mps")),
        ):
            if getattr(self, name) not in legal:
                raise InputError(
                    f"‹{name}› {getattr(self, name)}: must be {', '.join(legal[:-1])} or "
                    f"{legal[-1]}"
                )

    @classmethod
    def from_dict(cls, values: Any, source: str | Path = "recipe") -> Recipe:
        """Read back what `to_dict` wrote.

        Raises:
            InputError: an unknown key, or a value of another type; names `source`.
        """
        if not isinstance(values, dict):
            raise InputError(f"{source}: not a recipe; legal is a JSON object")
        legal = [f.name for f in fields(cls)]
        if unknown := sorted(set(values) - set(legal)):
            raise InputError(f"{source}: unknown key {unknown[0]!r}; known are {', '.join(legal)}")
        return from_json(values, cls, source)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recipe_of(folder: Path) -> Recipe:
    """What a run folder was tuned with."""
    return Recipe.from_dict(read_json(folder / "recipe.json"), folder / "recipe.json")
