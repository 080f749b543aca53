"""Everything that decides a tuning run; a run folder keeps it as `recipe.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from refocus.errors import InputError
from refocus.files import read_json
from refocus.runs import RECIPE
from refocus.settings import (
    Count,
    Device,
    Fraction,
    MaskPolarity,
    PathText,
    Positive,
    PositiveFraction,
    PositiveOrZero,
    Reference,
    Seed,
    SeedOfAll,
    Text,
    Workers,
    about,
    check,
)

# the one default of Python, the command line, `refocus run` and the app; "relevance" is the paper's
RECOMMENDED = "refocus"
BY_PROTOCOL: Any = None  # the default of a field follows from `protocol`
_DEFAULTS = {  # field -> its default, and that of the published code
    "val_images": (400, 414),  # the paper: one of each class that is not trained on
    "do_no_harm": (True, False),
    "mask_score": (0.5, 0.0),
}


@dataclass(frozen=True)
class Recipe:
    """What to tune, on what and how.

    The objective defaults to the one that we recommend; all else to the paper's (Table 5) unless a
    comment says otherwise. What each field means stands in its annotation, for the command line as
    well.

    Raises:
        InputError: a value that is not legal, or two that contradict each other.

    Examples:
        >>> import refocus
        >>> recipe = refocus.Recipe("vit_small_patch16_224", "images", "masks", shots=5)
        >>> recipe.objective, recipe.epochs
        ('refocus', 50)
    """

    model: Annotated[
        Reference,
        about("timm name, hf:ID, torchvision:NAME, or the folder of a model or of a finished run."),
    ]
    images: Annotated[PathText, about("ImageFolder to take the training images from: CLASS/FILE.")]
    masks: Annotated[
        PathText,
        about("Foreground masks: CLASS/FILE-STEM.png, 0 to 255; values in between are soft."),
    ]
    val: Annotated[
        PathText | None,
        about("ImageFolder to validate on. Default: images of ‹images› that are not trained on."),
    ] = None
    val_masks: Annotated[PathText | None, about("Foreground masks for ‹val›.")] = None
    backgrounds: Annotated[
        PathText | None,
        about(
            "Folder of images without objects of the classes; the do-no-harm check also puts "
            "objects on these backgrounds."
        ),
    ] = None
    objective: Annotated[Text, about("What to train for.")] = RECOMMENDED
    weights: Annotated[
        dict[str, float],
        about("Weight of a term of the objective, or of a term that any objective takes."),
    ] = field(default_factory=dict)  # terms that are missing keep the objective's weight
    teacher: Annotated[
        Reference | None,
        about(
            "For the term shape: a model as ‹model› names it, torchvision:NAME of any classifier "
            "there, or torchvision:NAME@FILE. Its outputs must be the model's classes."
        ),
    ] = None
    teacher_token: Annotated[
        Literal["class", "second"],
        about("Token that learns the teacher's answers; a distilled DeiT has a second one."),
    ] = "class"
    adain: Annotated[
        PathText | None,
        about(
            "For the term shape: folder with the published weights of AdaIN, vgg and decoder. "
            "Default: styles by Fourier amplitudes."
        ),
    ] = None
    target: Annotated[
        Literal["label", "predicted"],
        about(
            "Class whose map is trained: the image's own, or the one that the model predicts at "
            "each step, so that tuning needs no labels."
        ),
    ] = "label"
    map: Annotated[
        Literal["gae", "rollout", "attention", "gradcam", "legrad"],
        about("Map that is trained, for objectives that train one."),
    ] = "gae"
    # the published code does not
    second_order: Annotated[
        bool, about("Also differentiate through the gradient of the attention.")
    ] = False
    temperature: Annotated[
        Positive,
        about("Divides the logits in the confidence term; the paper's code uses 0.65 for DeiT-B."),
    ] = 1.0  # and 0.55 for DeiT-S
    classes: Annotated[
        Count | None, about("Number of classes to train on. Default: half of those in ‹images›.")
    ] = None
    class_seed: Annotated[
        Seed | None,
        about(
            "Seed that shuffles the classes before the first ones are taken. Default: the order of "
            "the listing."
        ),
    ] = None
    shots: Annotated[Count, about("Training images per class.")] = 3
    # which images, their order, their crops
    seed: SeedOfAll = 0
    epochs: Annotated[Count, about("Passes over the training images.")] = 50
    recompute: Annotated[
        bool,
        about("Recompute attention maps in the backward pass: less memory, 17 to 33 % slower."),
    ] = False
    batch_size: Annotated[Count, about("Images per step, over all processes together.")] = 8
    lr: Annotated[
        Positive | Literal["auto"] | None,
        about(
            "Learning rate, or auto to search for the highest safe one, as in the paper. "
            "Default: the objective's own."
        ),
    ] = None
    lr_range: Annotated[
        tuple[float, float], about("Lowest and highest rate of the search with ‹lr=auto›.")
    ] = (5e-7, 5e-6)  # where the paper searches, per model
    lr_decay: Annotated[
        Positive, about("Factor by which the rate is multiplied every ‹lr_decay_every› epochs.")
    ] = 0.85
    lr_decay_every: Annotated[Count, about("Epochs between two decays of the rate.")] = 2
    weight_decay: Annotated[PositiveOrZero, about("Weight decay of AdamW.")] = 1e-4
    flip: Annotated[Fraction, about("Probability of a left-right flip; 0 for text or digits.")] = (
        0.5
    )
    select: Annotated[
        Literal["best", "last"],
        about("Epoch to keep: best has the lowest validation loss, as in the paper."),
    ] = "best"
    last_blocks: Annotated[
        Count | None,
        about("Tune only this many of the last blocks, and everything after them."),
    ] = None
    lora: Annotated[
        Count | None,
        about(
            "Tune only the classifier and LoRA matrices of this rank, which are merged into the "
            "saved weights."
        ),
    ] = None
    protocol: Annotated[
        Literal["standard", "paper"],
        about(
            "standard, or paper: everything as in the published code (docs/design.md), such as "
            "mean = std "
            "= 0.5 for all models, soft mask edges, and no do-no-harm rule."
        ),
    ] = "standard"
    # of classes not trained on; the paper has 414
    val_images: Annotated[
        Count,
        about(
            "Maximum number of validation images after each epoch. Default: 400; 414 with "
            "‹protocol=paper›."
        ),
    ] = BY_PROTOCOL
    # once, at the end, of all classes
    check_images: Annotated[Count, about("Maximum number of images for the do-no-harm rule.")] = 400
    # ours: see harm.choose
    tolerance: Annotated[
        PositiveOrZero,
        about("Percentage points of accuracy on unchanged images that tuning may cost."),
    ] = 1.0
    share: Annotated[
        PositiveFraction | None,
        about(
            "With ‹do_no_harm=False›: share of the tuned weights in the average with the original "
            "ones; 1 is the tuned weights alone. Default: the objective's own."
        ),
    ] = None
    do_no_harm: Annotated[
        bool,
        about(
            "Keep only weights that pass the do-no-harm rule; without it, keep ‹share›. "
            "Default: on; off with ‹protocol=paper›."
        ),
    ] = BY_PROTOCOL  # the rule: harm.choose
    mask_score: Annotated[
        Fraction,
        about(
            "Leave out masks that `refocus masks` scored lower; 0 uses all. Default: 0.5; 0 "
            "with ‹protocol=paper›."
        ),
    ] = BY_PROTOCOL  # docs/masks.md
    mask_polarity: MaskPolarity = "ask"
    fewer: Annotated[
        bool,
        about(
            "If a class has fewer usable images than ‹shots›, use all of them instead of stopping."
        ),
    ] = False
    skip_bad: Annotated[
        bool, about("Leave out images without a usable mask instead of stopping.")
    ] = False
    precision: Annotated[Literal["fp32", "bf16"], about("Number format in training.")] = "fp32"
    device: Device = "auto"
    workers: Workers = "auto"

    def __post_init__(self) -> None:
        for name, values in _DEFAULTS.items():
            if getattr(self, name) is BY_PROTOCOL:
                object.__setattr__(self, name, values[self.protocol == "paper"])
        check(self)
        if not 0 < self.lr_range[0] < self.lr_range[1]:
            raise InputError(
                f"‹lr_range› {self.lr_range}: must be two positive numbers, the lower first"
            )
        if self.lr != "auto" and self.lr_range != type(self).lr_range:
            raise InputError("‹lr_range›: only with ‹lr=auto›")
        if self.share is not None and self.do_no_harm:
            raise InputError(
                "‹share›: only with ‹do_no_harm=False›; else the rule chooses the share"
            )
        if self.teacher is None and (self.adain or self.teacher_token != "class"):
            what = "adain" if self.adain else "teacher_token"
            raise InputError(f"‹{what}›: only with ‹teacher›")
        if self.lora and (self.last_blocks or self.weights.get("l2_sp")):
            raise InputError(
                "‹lora›: freezes the weights themselves, so ‹last_blocks› and the weight l2_sp "
                "have nothing to act on"
            )

    @classmethod
    def from_dict(cls, values: Any, source: str | Path = "recipe") -> Recipe:
        """Read back what `to_dict` wrote.

        Raises:
            InputError: an unknown key, a missing one, or a value that is not legal; names `source`.
        """
        if not isinstance(values, dict):
            raise InputError(f"{source}: not a recipe; must be a JSON object")
        legal = [f.name for f in fields(cls)]
        if unknown := sorted(set(values) - set(legal)):
            raise InputError(f"{source}: unknown key {unknown[0]!r}; known are {', '.join(legal)}")
        if missing := [name for name in legal[:3] if name not in values]:
            raise InputError(f"{source}: {missing[0]} is missing")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Its fields by name, as `recipe.json` holds them."""
        return asdict(self)


def recipe_of(folder: Path) -> Recipe:
    """What a run folder was tuned with."""
    return Recipe.from_dict(read_json(folder / RECIPE), folder / RECIPE)
