"""The studies: which runs each table and figure of the paper needs.

What is made of them stands in `findings.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from refocus.errors import InputError
from refocus.studies.datasets import Ground
from refocus.studies.words import plural
from refocus.tuning.presets import presets

PAPER_SUITES = (
    "imagenet",
    "imagenet-a",
    "imagenet-r",
    "imagenet-sketch",
    "imagenet-v2",
    "objectnet",
)  # Table 1
SI_SUITES = ("si-location", "si-rotation", "si-size")  # Table 2


@dataclass(frozen=True)
class Variant:
    """One way to tune, a row of a table.

    recipe: fields of its Recipe. masks: the kind, or empty for the best there is. method: what the
    paper calls it, empty where it has no such row. tunes: False for the model as it came. at: where
    on an axis of figure 7 it stands, by the axis.
    """

    name: str
    title: str
    recipe: dict[str, Any] = field(default_factory=dict)
    masks: str = ""
    method: str = ""
    tunes: bool = True
    at: dict[str, int] = field(default_factory=dict)


ORIGINAL = Variant("original", "original", method="original", tunes=False)
PUBLISHED = Variant(
    "relevance", "published objective", {"objective": "relevance"}, method="relevance"
)
AUTOMATIC = Variant(
    "relevance-unsupervised",
    "published objective, automatic masks",
    {"objective": "relevance"},
    "unsupervised",
    "relevance",
)
OURS = Variant("refocus", "refocus (ours)", {"objective": "refocus"})
BASELINES = (
    Variant("finetune", "cross-entropy alone", {"objective": "finetune"}),
    Variant(
        "gradmask-as-published",
        "GradMask as published",
        {"objective": "gradmask-as-published"},
        method="gradmask",
    ),
    Variant(
        "rrr-as-published", "RRR as published", {"objective": "rrr-as-published"}, method="rrr"
    ),
    Variant("gradmask", "GradMask, real double backward", {"objective": "gradmask"}),
    Variant("rrr", "RRR, real double backward", {"objective": "rrr"}),
)
_ABLATED = {  # paper Table 4: name -> title, weights
    "no-classification": ("without Eq. 4", {"classification": 0.0}),
    "no-background": ("without Eq. 1", {"background": 0.0}),
    "no-foreground": ("without Eq. 2", {"foreground": 0.0}),
    "ground-truth": ("with ground truth", {"classification": 0.0, "labels": 0.2}),
}
ABLATIONS = tuple(
    Variant(name, title, {"objective": "relevance", "weights": weights}, method=name)
    for name, (title, weights) in _ABLATED.items()
)
SHOTS, SHOTS_USUAL = (1, 2, 3, 5, 10), 3
AXIS_SHOTS, AXIS_CLASSES = "samples per class", "number of classes"
CLASS_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def _samples(classes: int, usual: int) -> tuple[Variant, ...]:
    """Figure 7: more samples of each class, and more classes.

    The published setting is on both axes. classes: that have masks. usual: trained on otherwise.
    """
    by_shots = [
        Variant(
            f"relevance-shots{n}",
            f"{n} a class",
            {"objective": "relevance", "shots": n, "fewer": True},
            at={AXIS_SHOTS: n},
        )
        for n in SHOTS
        if n != SHOTS_USUAL
    ]
    counts = dict.fromkeys(max(1, round(classes * share)) for share in CLASS_SHARES)
    by_classes = [
        Variant(
            f"relevance-of{n}",
            plural(n, "class", "classes"),
            {"objective": "relevance", "classes": n},
            at={AXIS_CLASSES: n},
        )
        for n in counts
        if n != usual
    ]
    published = replace(PUBLISHED, at={AXIS_SHOTS: SHOTS_USUAL, AXIS_CLASSES: usual})
    return (published, *by_shots, *by_classes)


@dataclass(frozen=True)
class Study:
    """layout: the row of `findings.LAYOUTS` that makes it.

    suites: of the paper's; all where empty. metrics: of accuracy. tables: of the paper, that have
    its numbers. models: of the paper, that it was done for; all where empty. draws: of the training
    classes, whose mean and deviation are shown; 0 for the first classes. shows: outcomes of a
    gallery. skips: so many of the best examples, which another figure shows. ends: classes shown at
    each end; 0 for all. average: of the changes over all models, which the paper prints as well.
    """

    about: str
    layout: str
    variants: tuple[Variant, ...] = (ORIGINAL, PUBLISHED)
    suites: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("top1", "top5")
    tables: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    draws: int = 0
    shows: tuple[str, ...] = ()
    skips: int = 0
    ends: int = 0
    average: bool = False

    def told(self, suites: Sequence[str]) -> str:
        """What it shows, with the suites in it where there is one study for each."""
        return f"{self.about}: {', '.join(suites)}" if self.layout == "per_class" else self.about


_SHOWN = ("ViT-B", "ViT-L", "AR-B", "AR-L", "DeiT-B")  # in the paper's figures of examples
_SHIFTED = ("imagenet-a", "objectnet", "si-rotation")
_ALL = (*PAPER_SUITES, *SI_SUITES)
_COMPARED = (ORIGINAL, *BASELINES, PUBLISHED, AUTOMATIC, OURS)
_BASE = ("ViT-B", "AR-B", "DeiT-B")
STUDIES = {
    "table1": Study(
        "robustness: baselines and both kinds of masks",
        "methods",
        _COMPARED,
        PAPER_SUITES,
        tables=(1,),
        average=True,
    ),
    "table2": Study(
        "the same for moved, rotated and smaller objects",
        "methods",
        _COMPARED,
        SI_SUITES,
        tables=(2,),
    ),
    "table3": Study(
        "how well the maps segment the object",
        "segmentation",
        (ORIGINAL, PUBLISHED, OURS),
        tables=(3,),
    ),
    "table4": Study(
        "ablations, top-1",
        "methods",
        (ORIGINAL, PUBLISHED, *ABLATIONS),
        _ALL,
        ("top1",),
        (4,),
        ("ViT-B", "DeiT-B"),
    ),
    "table8": Study(
        "draws of the training classes, top-1",
        "methods",
        suites=_ALL,
        metrics=("top1",),
        tables=(8,),
        draws=3,
    ),
    "table9": Study(
        "draws of the training classes, top-5",
        "methods",
        suites=_ALL,
        metrics=("top5",),
        tables=(9,),
        draws=3,
    ),
    "table10": Study(
        "trained classes against others",
        "classes",
        suites=PAPER_SUITES,
        tables=(10,),
        models=_BASE,
        average=True,
    ),
    "table11": Study(
        "the same for moved, rotated and smaller objects",
        "classes",
        suites=SI_SUITES,
        tables=(11,),
        models=_BASE,
        average=True,
    ),
    "table12": Study(
        "ablations, top-5",
        "methods",
        (ORIGINAL, PUBLISHED, *ABLATIONS),
        _ALL,
        ("top5",),
        (12,),
        ("ViT-B", "DeiT-B"),
    ),
    "figure1": Study(
        "relevance on the background, and relevance on few patches",
        "salience",
        (ORIGINAL,),
        models=_BASE,
    ),
    "figure2": Study(
        "kept, corrected and changed answers on natural images",
        "gallery",
        suites=("imagenet",),
        models=_SHOWN,
        shows=("Right before and after", "Corrected", "Spoiled"),
    ),
    "figure3": Study(
        "corrected answers under shift",
        "gallery",
        suites=_SHIFTED,
        models=_SHOWN,
        shows=("Corrected",),
    ),
    "figure4": Study(
        "average change over base models, on trained and on other classes",
        "averages",
        suites=_ALL,
        tables=(10, 11),
        models=_BASE,
        average=True,
    ),
    "figure6": Study(
        "more corrected answers under shift",
        "gallery",
        suites=_SHIFTED,
        models=_SHOWN,
        shows=("Corrected",),
        skips=4,
    ),
    "figure7": Study(
        "samples per class, and number of classes",
        "samples",
        (ORIGINAL,),
        _ALL,
        ("top1",),
        models=("ViT-B",),
    ),
    **{
        f"figure{number}": Study(
            "classes that gain and lose most" if ends else "change of every class",
            "per_class",
            suites=(suite,),
            metrics=("top1",),
            models=("ViT-B",),
            ends=ends,
        )
        for number, (suite, ends) in zip(
            range(8, 15),
            (
                ("imagenet", 50),
                ("imagenet-v2", 50),
                ("imagenet-a", 0),
                ("imagenet-r", 0),
                ("imagenet-sketch", 50),
                ("si-rotation", 0),
                ("si-size", 0),
            ),
            strict=True,
        )
    },
    "figure15": Study(
        "first spoiled images of the two classes that lose most",
        "worst",
        suites=("imagenet-a", "imagenet-v2"),
        models=("ViT-B",),
    ),
    "appendix-a": Study(
        "sufficient input subsets, for the predicted and for any class",
        "subsets",
        (ORIGINAL,),
        models=("ViT-B",),
    ),
    "claims": Study(
        "the reproduction sheet: every number of Tables 1 to 3",
        "claims",
        _COMPARED,
        _ALL,
        tables=(1, 2, 3),
    ),
}


def study(name: str) -> Study:
    """The row of this name."""
    if name not in STUDIES:
        raise InputError(f"‹name› {name}: no such study; choose one of {', '.join(STUDIES)}")
    return STUDIES[name]


def variants_of(row: Study, ground: Ground, classes: int, usual: int) -> list[Variant]:
    """The rows of a study that can be run here.

    A kind of masks has a row of its own where there are two. classes: that have masks. usual:
    trained on where a row says nothing else.
    """
    found = [*row.variants, *(_samples(classes, usual) if row.layout == "samples" else [])]
    return [v for v in found if not v.masks or (v.masks in ground.masks and len(ground.masks) > 1)]


def draws_of(row: Study, variant: Variant, count: int, seed: int) -> list[Variant]:
    """The runs behind a row of the table.

    Draws of the training classes where the study is about these, else of everything that follows
    from the seed: the images of each class, their order, their crops. The first is then the run
    that other studies show alone.
    """
    if not variant.tunes:
        return [variant]
    if row.draws:
        return [_drawn(variant, f"classes{number}", class_seed=number) for number in range(count)]
    others = range(seed + 1, seed + count)
    return [variant, *(_drawn(variant, f"seed{number}", seed=number) for number in others)]


def _drawn(variant: Variant, name: str, **fields: int) -> Variant:
    return replace(variant, name=f"{variant.name}-{name}", recipe={**variant.recipe, **fields})


def suites_of(row: Study, ground: Ground) -> list[str]:
    """The suites of a study that are there.

    Of the user's own those that are nearest to the paper's, `natural` at least.
    """
    found = [name for name in ground.suites if not row.suites or ground.like(name) in row.suites]
    if ground.own and not found:
        found = ["mixed-rand"] if "mixed-rand" in ground.suites else ["natural"]
    return found


def models_of(row: Study, ground: Ground, given: bool) -> list[str]:
    """The paper's models of a study, unless the user named some or brought one."""
    return [
        name
        for name in ground.models
        if ground.own or given or not row.models or name in row.models
    ]


def recipe_fields(
    variant: Variant, model: str, ground: Ground, common: dict[str, Any]
) -> dict[str, Any]:
    """Recipe fields of one run.

    What the paper used for the model, the ground's, the user's, then the variant's own.
    """
    fields = {**ground.recipe, **common, **variant.recipe}
    row = {} if ground.own else presets().get(model, {})
    objective = fields["objective"]
    table = (
        row.get(objective.removesuffix("-as-published"), {})
        if objective not in ("gradmask", "rrr")
        else {}
    )
    if table:
        fields.setdefault("lr", table["lr"])
        fields["weights"] = {
            **{k: v for k, v in table.items() if k != "lr"},
            **fields.get("weights", {}),
        }
    if objective == "relevance":
        fields["temperature"] = row.get("temperature", 1.0)
    return fields
