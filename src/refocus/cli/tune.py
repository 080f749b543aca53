"""`refocus tune`: a few images and masks -> a model that looks at the object."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from refocus import outputs
from refocus.cli.options import Called, Device, MaskPolarity, Names, Order, Seed
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.tuning.recipe import Recipe

DEFAULT: dict[str, Any] = {f.name: f.default for f in fields(Recipe)}


def tune(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="timm name, hf:ID, torchvision:NAME or a model folder.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="ImageFolder to take the few shots from: CLASS/FILE.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Foreground masks: CLASS/FILE-STEM.png, 0/255 (soft allowed)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New run folder; the model lands in OUT/model.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue this interrupted run folder; no other option is needed."),
        Called("run"),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            help="py:MODULE:FUNCTION once more, with --resume of a model of your own: a folder "
            "cannot name code to run."
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(help="ImageFolder to validate on; else images of --images not trained on."),
    ] = None,
    val_masks: Annotated[str | None, typer.Option(help="Masks for --val.")] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="relevance (published), refocus (ours), finetune (baseline), energy, bce, legrad, "
            "swap, gradmask, rrr, "
            "relevance-exact, or what the paper's code trained as baselines: "
            "gradmask-as-published, rrr-as-published."
        ),
    ] = DEFAULT["objective"],
    names: Names = None,
    order: Order = None,
    mask_polarity: MaskPolarity = DEFAULT["mask_polarity"],
    preset: Annotated[
        str | None,
        typer.Option(
            help="The paper's model, rate and weights: ViT-B, ViT-L, AR-S, AR-B, AR-L, DeiT-S or "
            "DeiT-B."
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            help="TERM=VALUE, of the objective's terms or of confidence, labels, kl, l2_sp, "
            "rotation; repeat."
        ),
        Called("weights"),
    ] = None,
    second_order: Annotated[
        bool,
        typer.Option("--second-order", help="Differentiate through the attention gradient too."),
    ] = False,
    temperature: Annotated[
        float, typer.Option(help="Of the confidence term; the paper's code has 0.65 for DeiT-B.")
    ] = DEFAULT["temperature"],
    classes: Annotated[
        int | None, typer.Option(help="Train on so many classes; else on half of them.")
    ] = None,
    class_seed: Annotated[
        int | None, typer.Option(help="Shuffle the classes before the first N are taken.")
    ] = None,
    shots: Annotated[int, typer.Option(help="Training images per class.")] = DEFAULT["shots"],
    epochs: Annotated[int, typer.Option(help="Passes over the shots.")] = DEFAULT["epochs"],
    batch_size: Annotated[int, typer.Option(help="Images per step, over all processes.")] = DEFAULT[
        "batch_size"
    ],
    lr: Annotated[
        str | None,
        typer.Option(
            help="Learning rate, or auto: the paper's search for the highest safe one. Default: "
            "the objective's."
        ),
    ] = None,
    lr_range: Annotated[
        tuple[float, float],
        typer.Option(help="LOW HIGH, where --lr auto searches; the default is the paper's."),
    ] = DEFAULT["lr_range"],
    lr_decay: Annotated[
        float, typer.Option(help="Factor on the rate every --lr-decay-every epochs.")
    ] = DEFAULT["lr_decay"],
    lr_decay_every: Annotated[int, typer.Option(help="Epochs between two decays.")] = DEFAULT[
        "lr_decay_every"
    ],
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = DEFAULT["weight_decay"],
    flip: Annotated[
        float, typer.Option(help="Chance of a left-right flip; 0 for text or digits.")
    ] = DEFAULT["flip"],
    select: Annotated[
        str, typer.Option(help="Epoch to keep: best (lowest validation loss) or last.")
    ] = DEFAULT["select"],
    last_blocks: Annotated[
        int | None, typer.Option(help="Tune only the last so many blocks and the classifier.")
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(help="Tune only low-rank additions of this rank (LoRA), merged when saved."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Preprocessing in tuning: standard (the model's own) or paper (mean = std = 0.5)."
        ),
    ] = DEFAULT["protocol"],
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Form attention maps anew in the backward pass: less memory, a sixth to a third "
            "slower.",
        ),
    ] = False,
    val_images: Annotated[
        int, typer.Option(help="At most so many validation images after each epoch.")
    ] = DEFAULT["val_images"],
    check_images: Annotated[
        int, typer.Option(help="At most so many images for the do-no-harm rule.")
    ] = DEFAULT["check_images"],
    tolerance: Annotated[
        float, typer.Option(help="Points of in-domain top-1 that tuning may cost.")
    ] = DEFAULT["tolerance"],
    share: Annotated[
        float | None,
        typer.Option(
            help="With --no-do-no-harm: keep so much of the way to the tuned weights; else the "
            "objective's."
        ),
    ] = None,
    do_no_harm: Annotated[
        bool,
        typer.Option(
            help="Keep what the validation rule advises, or without it the objective's --share."
        ),
    ] = True,
    mask_score: Annotated[
        float,
        typer.Option(
            help="Leave out masks to which `refocus masks` gave a lower score (0 takes all)."
        ),
    ] = DEFAULT["mask_score"],
    fewer: Annotated[
        bool,
        typer.Option(
            "--fewer",
            help="Of a class with fewer usable images than --shots take all instead of stopping.",
        ),
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out images without a usable mask instead of stopping."
        ),
    ] = False,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = DEFAULT["precision"],
    workers: Annotated[int, typer.Option(help="Processes that decode images.")] = DEFAULT[
        "workers"
    ],
    seed: Seed = DEFAULT["seed"],
    device: Device = DEFAULT["device"],
) -> None:
    """Fine-tune where a model looks, with a few images and masks; the original stays if that did
    not help.

    The number of classes and shots, the rate and the objective default to the paper's. Under
    `torchrun` or `accelerate launch` the batch is split over the processes.
    """
    given = {k: v for k, v in locals().items() if k in DEFAULT}
    from refocus.tuning import tune as finetune

    if resume is not None:
        if others := [
            p for p in context.params if p not in ("resume", "code") and _given(context, p)
        ]:
            raise InputError(
                f"--{others[0].replace('_', '-')}: --resume goes on as the run was started and "
                "takes no option but --code"
            )
        results, folder = finetune.resume(resume, code=code), resume
    else:
        if code is not None:
            raise InputError(
                "--code: only with --resume; else name the model by --model py:MODULE:FUNCTION"
            )
        weights = _weights(weight or [])
        if lr != "auto" and _given(context, "lr_range"):
            raise InputError("--lr-range: only with --lr auto")
        given["lr"] = None if lr is None else _rate(lr)
        if preset is not None:
            from refocus.tuning.presets import preset as published

            row = published(preset, objective, model)
            weights = {**row.pop("weights"), **weights}
            given |= {name: value for name, value in row.items() if not _given(context, name)}
        for name, value in (*((n, given[n]) for n in ("model", "images", "masks")), ("out", out)):
            if value is None:
                hint = "; `refocus masks` makes some without annotation" if name == "masks" else ""
                raise InputError(f"--{name}: missing{hint}")
        assert out is not None
        given["model"] = outputs.reference(str(given["model"]), names=names, order=order)
        recipe = Recipe(**{**given, "weights": weights})
        results, folder = finetune.tune(recipe, out), out
    if not results:  # a process other than the first
        return
    table = Table(
        "share of tuned weights",
        "top-1, %",
        "swapped backgrounds, % (corrected, broken)",
        "relevance loss",
    )
    for c in results["candidates"]:
        mark = " <- kept" if c["share"] == results["chosen_share"] else ""
        loss = "-" if c["relevance_loss"] is None else f"{c['relevance_loss']:.4f}"
        moved = f"{c['swapped']:.1f} (+{c['corrected']} -{c['broken']})"
        table.add_row(f"{c['share']:g}{mark}", f"{c['in_domain']:.1f}", moved, loss)
    console.print(table)
    console.print(
        f"{results['finding']}\nbest epoch {results['best_epoch']}; model: {folder / 'model'}",
        soft_wrap=True,
    )


def _given(context: typer.Context, parameter: str) -> bool:
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _rate(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the recipe knows the one legal word


def _weights(pairs: list[str]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        term, _, value = pair.partition("=")
        try:
            weights[term] = float(value)
        except ValueError:
            raise InputError(f"--weight {pair}: must be TERM=NUMBER") from None
    return weights
