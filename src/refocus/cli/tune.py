"""`refocus tune`: a few images and masks -> a model that looks at the object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from refocus import processes, references
from refocus.cli.options import (
    Called,
    Names,
    Order,
    Rows,
    Track,
    is_named,
    settings_from,
    with_settings,
)
from refocus.cli.output import EVERYWHERE
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.tuning.recipe import Recipe
from refocus.tuning.results import TuneResults

NEEDED = ("model", "images", "masks")


@with_settings(
    Recipe,
    optional=NEEDED,
    spelt={"weights": "weight"},
    beside={
        "objective": Rows("refocus.objectives.registry:OBJECTIVES", "Objectives", described=True),
        "weights": Rows(
            "refocus.objectives.regularizers:REGULARIZERS", "Terms of any objective", described=True
        ),
    },
)
def tune(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run; the model is in OUT/model.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(hidden=True, help="Continue this run folder; takes no other option."),
        Called("run"),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            hidden=True,
            help="For a model of your own: repeat its py:MODULE:FUNCTION.",
        ),
    ] = None,
    track: Track = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Use the paper's model, learning rate and weights of terms."),
        Rows("refocus.tuning.presets:presets", "Presets"),
    ] = None,
    names: Names = None,
    order: Order = None,
    **given: Any,
) -> TuneResults | None:
    """Fine-tune where a model looks, with a few images and masks.

    The original model is kept if tuning did not help. Run the same command again to resume where
    it stopped. The objective defaults to the one that we recommend; `--objective relevance` is the
    paper's. Under `torchrun` or `accelerate launch` the batch is split over the processes.
    """
    named = {name for name in context.params if is_named(context, name)}
    if resume is not None:
        if others := sorted(named - {"resume", "code", "track", *EVERYWHERE}):
            raise InputError(
                f"‹{others[0]}›: ‹run› continues as the run was started and takes no option but "
                "‹code› and ‹track›"
            )
        from refocus.tuning.tune import resume as resumed

        results, folder = resumed(resume, code=code, track=track), resume
    else:
        if code is not None:
            raise InputError(
                "‹code›: only with ‹run›; else name the model by ‹model=py:MODULE:FUNCTION›"
            )
        recipe = _recipe(given, preset, named)
        recipe = replace(
            recipe, model=references.with_names(str(recipe.model), names=names, order=order)
        )
        if out is None:
            raise InputError("‹out›: missing")
        from refocus.tuning.tune import tune as tuned  # loads torch, so what is wrong is said first

        results, folder = tuned(recipe, out, track=track), out
    if not processes.place().first:
        return None
    _print(results, folder)
    return results


def _recipe(given: dict[str, Any], preset: str | None, named: set[str]) -> Recipe:
    """What was named, then what the preset says, then the defaults."""
    values = settings_from(Recipe, given)
    if "lr_range" in named and values["lr"] != "auto":
        raise InputError("‹lr_range›: only with ‹lr=auto›")
    if preset is not None:
        from refocus.tuning.presets import preset as published

        if "objective" not in named:
            values["objective"] = "relevance"  # the paper's
        row = published(preset, values["objective"], values["model"])
        values["weights"] = {**row.pop("weights"), **values.get("weights", {})}
        values |= {name: value for name, value in row.items() if name not in named}
    if values["masks"] is None and values["images"] is not None:
        values["masks"] = _own_masks(values["images"])
    for name in NEEDED:
        if values[name] is None:
            hint = "; `refocus masks` makes some without annotation" if name == "masks" else ""
            raise InputError(f"‹{name}›: missing{hint}")
    return Recipe(**values)


def _own_masks(images: str) -> str | None:
    """The images' own name where they come with masks, as a table with such a column does."""
    from refocus.data.sources.opened import opened

    return images if opened(images).masks else None


def _print(results: TuneResults, folder: Path) -> None:
    console.print(f"{results.conclusion}\n", soft_wrap=True)
    table = Table(
        "share of tuned weights",
        "top-1, %",
        "lost at most, points",
        "swapped backgrounds, %",
        "gained at least, points",
        "relevance loss",
    )
    for c in results.candidates:
        mark = " <- kept" if c.share == results.chosen_share else ""
        numbers = (c.in_domain.model.value, c.most_lost, c.swapped.model.value, c.least_gained)
        cells = [_number(value, 1) for value in numbers]
        table.add_row(f"{c.share:g}{mark}", *cells, _number(c.relevance_loss, 4))
    console.print(table)
    console.print(f"best epoch {results.best_epoch}; model: {folder / 'model'}", soft_wrap=True)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
