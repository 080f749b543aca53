"""How help is arranged: panels of options, rarely used ones behind `--advanced`, examples."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

ADVANCED = "--advanced"  # with --help: shows rarely used options as well
OTHER = "Other"
PANELS = {  # title -> the library's names of parameters, in the order of help
    "Data": (
        "images", "masks", "suites", "on", "tests", "sources", "val", "val_masks", "backgrounds",
        "classes",
        "shots", "most", "kinds", "shifts", "groups", "styles", "adain", "cues", "imagenet_c",
        "outside", "transfer", "results", "source",
        "mask_score", "mask_polarity", "class_seed", "fewer", "skip_bad", "val_images", "mapping",
        "learn_from", "ignore", "orientation", "boxes", "templates", "class_", "settings", "test",
    ),
    "Model": (
        "model", "models", "against", "backend", "backbone", "names", "order", "code", "preset",
        "lora", "last_blocks", "protocol", "protocols", "checkpoints", "arch",
    ),
    "Objective": (
        "objective", "objectives", "weights", "teacher", "teacher_token", "target", "map",
        "second_order", "temperature",
        "rates", "saliency", "units",
    ),
    "Schedule": (
        "epochs", "batch_size", "lr", "lr_range", "lr_decay", "lr_decay_every", "weight_decay",
        "flip", "select", "refine", "size", "draws", "seeds",
    ),
    "Safety": ("do_no_harm", "tolerance", "share", "check_images"),
    "Output": (
        "out", "resume", "dry_run", "faithful", "onnx", "licence", "private", "card_only",
        "work", "host", "port", "track", "as_json", "quiet",
    ),
    "Compute": ("device", "workers", "precision", "recompute", "seed"),
}  # fmt: skip
RARE = frozenset(  # hidden unless --advanced is given
    (
        "names", "order", "code", "mask_polarity", "class_seed", "target", "map", "second_order",
        "temperature",
        "lr_range", "lr_decay", "lr_decay_every", "weight_decay", "select", "last_blocks", "lora",
        "protocol", "val_images", "check_images", "fewer", "skip_bad", "recompute", "workers",
        "learn_from", "ignore", "orientation", "boxes", "refine", "size", "faithful",
        "mapping", "saliency", "imagenet_c", "styles", "templates",
        "outside", "transfer", "results", "units", "adain", "teacher", "teacher_token",
    )
)  # fmt: skip
ALIASES = ("resume",)  # of earlier versions, which still work and are never shown
_RANK = {name: rank for rank, names in enumerate(PANELS.values()) for name in names}
_TITLES = {name: title for title, names in PANELS.items() for name in names}

EXAMPLES = {  # command -> what it does, and how it is written
    "demo": (
        ("The whole story offline, in a few minutes", "refocus demo"),
        ("Again, with another seed", "refocus demo --seed 1 --out demo-1"),
    ),
    "run": (
        (
            "The whole pipeline, masks included",
            "refocus run --model MODEL --images images --out run",
        ),
        (
            "With your own masks and test set",
            "refocus run --model MODEL --images images --masks masks --test street=street "
            "--out run",
        ),
        (
            "What would it do, and how long would it take?",
            "refocus run --model MODEL --images images --dry-run",
        ),
    ),
    "check": (
        (
            "Are classes, images and masks read as you expect?",
            "refocus check --model MODEL --images images --masks masks --out check.html",
        ),
        (
            "A model that carries no class names",
            "refocus check --model vit.pth?arch=vit_small_patch16_224 --images images "
            "--names classes.txt",
        ),
    ),
    "explain": (
        ("Where does it look?", "refocus explain photo.jpg --model MODEL --out look"),
        (
            "Before and after tuning, for one class",
            "refocus explain photos --model run/model --against MODEL --class dog --out look",
        ),
    ),
    "masks": (
        ("Find masks offline", "refocus masks images --out masks"),
        ("Convert yours", "refocus masks images --out masks --from coco instances.json"),
        (
            "Colour-coded PNGs in which 255 is no class",
            "refocus masks images --out masks --from png annotations --ignore 255",
        ),
    ),
    "tune": (
        (
            "The recommended objective, with the do-no-harm rule",
            "refocus tune --model MODEL --images images --masks masks --out run",
        ),
        (
            "Keep the average of tuned and original weights without the rule",
            "refocus tune --model MODEL --images images --masks masks --out run "
            "--no-do-no-harm --share 0.5",
        ),
        (
            "The objective of the paper",
            "refocus tune --model MODEL --images images --masks masks --out run "
            "--objective relevance",
        ),
    ),
    "evaluate": (
        (
            "Before and after, on your images and on other backgrounds",
            "refocus evaluate --model run/model --against MODEL --on test=images "
            "--masks test=masks --shift mixed-same,mixed-rand --out proof",
        ),
        (
            "On known test sets",
            "refocus evaluate --model MODEL --on imagenet-a=/data/imagenet-a "
            "imagenet-r=/data/imagenet-r --out proof",
        ),
    ),
    "shifts": (
        (
            "Your images on other backgrounds, as folders",
            "refocus shifts images --masks masks --kind mixed-same,mixed-rand --out shifts",
        ),
        ("Every shift", "refocus shifts images --masks masks --kind all --out shifts"),
    ),
    "audit": (
        (
            "How much does it rely on the background?",
            "refocus audit --model MODEL --images images --out audit",
        ),
        (
            "With masks of your own, on 100 images",
            "refocus audit --model MODEL --images images --masks masks --most 100 --out audit",
        ),
    ),
    "probe": (
        (
            "Two quick tests, before and after",
            "refocus probe run --model run/model --against MODEL --images test --out probes "
            "--kind occlusion,permutation",
        ),
        (
            "All probes that the given input allows",
            "refocus probe run --model MODEL --images test --masks masks --out probes --kind all",
        ),
        ("What each probe tests and costs", "refocus probe list"),
    ),
    "app": (
        ("Compare two models", "refocus app --model run/model --against MODEL"),
        (
            "Also fix masks, tune and audit",
            "refocus app --model MODEL --images images --masks masks",
        ),
    ),
    "probes": (
        ("What each probe tests and costs", "refocus probe list"),
        (
            "Run one",
            "refocus probe run --model MODEL --images test --out probes --kind occlusion",
        ),
    ),
    "report": (
        ("What did a tuning run change?", "refocus report run"),
        (
            "On images that the run never saw",
            "refocus report run --on test=images --masks test=masks",
        ),
    ),
    "study": (
        ("What studies there are", "refocus study list"),
        (
            "What a study needs and how long it takes",
            "refocus study table1 --data data.toml --dry-run",
        ),
    ),
    "export": (
        ("One file for ONNX Runtime", "refocus export run --onnx model.onnx"),
        ("A model that was not tuned", "refocus export MODEL --onnx model.onnx"),
    ),
    "push": (
        ("Model and card, with a licence", "refocus push run YOU/MODEL --license mit"),
        ("Write the card and send nothing", "refocus push run --card-only"),
    ),
    "models": (
        ("The supported families", "refocus models"),
        ("The same as Markdown", "refocus models --out models.md"),
    ),
    "zero-shot": (
        (
            "A classifier from the names of class folders",
            "refocus zero-shot --model hf:openai/clip-vit-base-patch32 --names images --out clip",
        ),
        (
            "From a list",
            "refocus zero-shot --model hf:openai/clip-vit-base-patch32 --names cat,dog --out clip",
        ),
    ),
}


def arrange(parameters: list[Any], *, advanced: bool) -> bool:
    """Put options into their panels and hide rarely used ones.

    Returns:
        Whether there are hidden ones.
    """
    options = [p for p in parameters if p.param_type_name == "option" and p.name != "help"]
    for option in options:
        option.rich_help_panel = _TITLES.get(option.name, OTHER)
        rare = not (advanced or option.required) and option.name in RARE
        option.hidden = rare or option.name in ALIASES
    parameters.sort(key=_rank)
    return any(option.hidden and option.name not in ALIASES for option in options)


def _rank(parameter: Any) -> int:
    if parameter.param_type_name != "option":
        return -1
    return len(PANELS) + 1 if parameter.name == "help" else _RANK.get(parameter.name, len(PANELS))


def examples(command: str, *, hidden: bool) -> Panel | None:
    """The panel below a command's options; hidden: say how to see the rest."""
    lines = [
        f"[dim]# {escape(what)}[/dim]\n{escape(line)}" for what, line in EXAMPLES.get(command, ())
    ]
    if hidden:
        lines.append(f"[dim]Rarely used options: refocus {command} --help {ADVANCED}[/dim]")
    text = Text.from_markup("\n".join(lines))
    return Panel(text, title="Examples", title_align="left", border_style="dim") if lines else None
