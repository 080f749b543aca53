"""`refocus study`: a table or figure of the paper from one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from refocus import outputs
from refocus.cli.options import Called
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.tuning.recipe import Recipe


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="table1 ... figure14, appendix-a, claims; `refocus study list` shows them all."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; studies share runs in it, and go on where they were stopped."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="TOML file that names the paper's data sets (docs/studies.md)."),
    ] = None,
    on: Annotated[
        Path | None,
        typer.Option(
            help="Your own images: one ImageFolder, or a folder with train/, test/ and perhaps "
            "val/."
        ),
        Called("suites"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="With --on: timm name, hf:ID, torchvision:NAME or a model folder."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="With --on: masks made by people, laid out as the images.")
    ] = None,
    automatic_masks: Annotated[
        Path | None,
        typer.Option(help="With --on: masks of `refocus masks`, laid out as the images."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="With --data: only this model of the paper; repeat for more."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of every run; else the paper's 50.", min=1)
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Classes to train on; else half of them, the paper's 500.", min=1),
    ] = None,
    lr: Annotated[
        list[str] | None,
        typer.Option(help="OBJECTIVE=RATE, in place of the objective's own; repeat for more."),
    ] = None,
    select: Annotated[
        str,
        typer.Option(help="Epoch to keep: best (lowest validation loss, as in the paper) or last."),
    ] = "best",
    val_images: Annotated[
        int | None, typer.Option(help="At most so many validation images after each epoch.", min=1)
    ] = None,
    most: Annotated[
        int,
        typer.Option(
            help="With --on: test images of each level of location, rotation and size.", min=2
        ),
    ] = 100,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            help="With --on: mixed-rand, location, rotation, size; repeat for more. Default: all "
            "four."
        ),
        Called("shifts"),
    ] = None,
    maps: Annotated[
        int, typer.Option(help="With --on: test images for the maps of table3.", min=2)
    ] = 200,
    precision: Annotated[str, typer.Option(help="Of tuning: fp32 or bf16.")] = "fp32",
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="Of tuning: auto, cpu, cuda or mps.")] = "auto",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what is missing, how large it is, and the hours."),
    ] = False,
) -> None:
    """Run a table or figure of the paper, on its data sets (--data) or on your own images and model
    (--on).

    Every number is printed beside the paper's. Under `torchrun`, on one machine or several that
    share OUT, each process takes whole runs of the study.
    """
    from refocus.studies import registry

    if name == "list":
        table = Table("study", Column("what it shows", overflow="fold"))
        for key, row in registry.STUDIES.items():
            table.add_row(key, row.about)
        console.print(table)
        return
    row = registry.study(name)
    if out is None and not dry_run:
        raise InputError("--out: missing")
    if (data is None) == (on is None):
        raise InputError(
            "--data or --on: give one of them, the paper's data sets or your own images"
        )
    if on is not None and (dry_run or row.layout == "claims"):
        what = "--dry-run" if dry_run else "study claims"
        raise InputError(f"{what}: is about the paper's own data sets; give --data, not --on")
    from refocus import processes

    place = processes.take_place()
    folder = (out or Path("refocus-study")).expanduser()
    fixed = {"epochs": epochs, "classes": classes, "val_images": val_images}
    common: dict[str, Any] = {key: value for key, value in fixed.items() if value is not None}
    common |= {
        "precision": precision,
        "workers": workers,
        "seed": seed,
        "device": device,
        "select": select,
        "check_images": 1,
    }
    Recipe(
        model="", images="", masks="", **common
    )  # a wrong value is said before anything is written
    common["rates"] = _rates(lr or [])
    settings = {
        **{key: value for key, value in common.items() if key not in ("workers", "device")},
        "data": data and str(data.expanduser().resolve()),
        "on": on and str(on.expanduser().resolve()),
        "model": model and outputs.resolved(model),
        "masks": masks and str(masks.expanduser().resolve()),
        "automatic_masks": automatic_masks and str(automatic_masks.expanduser().resolve()),
        "most": most,
        "shift": shift,
    }
    ground = _ground(
        data,
        on,
        model,
        masks,
        automatic_masks,
        models,
        folder,
        settings,
        place,
        most,
        shift,
        seed,
        dry_run,
    )
    from refocus.studies.conduct import Order, conduct
    from refocus.studies.conduct import dry_run as estimate

    order = Order(name, row, ground, folder, common, bool(models), maps, workers=workers)
    if dry_run:
        _print_estimate(estimate(order))
        return
    found = conduct(order, place)
    if found:
        console.print(found["table"], soft_wrap=True, markup=False, highlight=False)
        console.print(f"open in a browser: {folder / (name + '.html')}", soft_wrap=True)


def _ground(
    data: Path | None,
    on: Path | None,
    model: str | None,
    masks: Path | None,
    automatic: Path | None,
    models: list[str] | None,
    out: Path,
    settings: dict[str, Any],
    place: Any,
    most: int,
    shift: list[str] | None,
    seed: int,
    dry: bool,
) -> Any:
    """Open what the study runs on; with --on the first process writes the shifts and the others
    wait for it.
    """
    from refocus.studies import datasets

    if data is not None:
        for option, given in (
            ("--model", model),
            ("--masks", masks),
            ("--automatic-masks", automatic),
            ("--shift", shift),
        ):
            if given:
                raise InputError(
                    f"{option} {given}: only with --on; --data names models and masks in its file"
                )
        ground = datasets.narrowed(datasets.read_toml(data), models)
        if not dry:
            keep_settings(out, settings, place)
        return ground
    assert on is not None
    if models:
        raise InputError(f"--models {models[0]}: only with --data")
    if model is None:
        raise InputError("--model: missing; --on needs your model")
    if masks is None and automatic is None:
        raise InputError(
            "--masks: missing; a study needs masks, and `refocus masks` makes some for "
            "--automatic-masks"
        )
    from refocus.data.shifts import kinds
    from refocus.processes import wait_for
    from refocus.vit.loading import load

    network = load(model)
    kept = {
        kind: path.expanduser().resolve()
        for kind, path in (("annotated", masks), ("unsupervised", automatic))
        if path
    }
    wanted = tuple(shift) if shift else ("mixed-rand", *datasets.CURVES)
    for kind in wanted:
        kinds(kind, "shifts")
        if kind not in datasets.LIKE:
            raise InputError(
                f"--shift {kind}: legal here are mixed-rand, {', '.join(datasets.CURVES)}"
            )
    keep_settings(out, settings, place)
    prepared = out / "prepared.json"
    if place.rank:
        wait_for(prepared)
    ground = datasets.own(on, model, network, kept, out, most=most, seed=seed, kinds=wanted)
    if not place.rank:
        outputs.write_json(prepared, {"suites": list(ground.suites)})
    return ground


def keep_settings(out: Path, settings: dict[str, Any], place: Any) -> None:
    """One folder, one set of settings: runs are shared by all studies in it."""
    kept = out / "settings.json"
    if kept.exists():
        if outputs.read_json(kept) != settings:
            raise InputError(
                f"--out {out}: holds studies with other settings (see {kept}); name a new folder"
            )
    elif place.rank == 0:
        if out.exists() and any(out.iterdir()):
            raise InputError(f"--out {out}: exists already and holds no study; name a new folder")
        out.mkdir(parents=True, exist_ok=True)
        outputs.write_json(kept, settings)


def _rates(pairs: list[str]) -> dict[str, float]:
    from refocus.objectives.registry import OBJECTIVES

    rates = {}
    for pair in pairs:
        objective, _, rate = pair.partition("=")
        if objective not in OBJECTIVES:
            raise InputError(
                f"--lr {pair}: must be OBJECTIVE=RATE; legal objectives are {', '.join(OBJECTIVES)}"
            )
        try:
            rates[objective] = float(rate)
        except ValueError:
            raise InputError(f"--lr {pair}: must be OBJECTIVE=NUMBER") from None
    return rates


def _print_estimate(found: dict[str, Any]) -> None:
    table = Table(
        "what", Column("path", overflow="fold"), "there", "images", "GB", title="what it needs"
    )
    for place in found["places"]:
        size = "-" if place["gb"] is None else f"{place['gb']:g}"
        images = "-" if place["images"] is None else str(place["images"])
        table.add_row(
            place["what"], place["path"], "yes" if place["there"] else "MISSING", images, size
        )
    console.print(table)
    for key in ("masks not named", "suites not named"):
        if found[key]:
            console.print(f"{key}: {', '.join(found[key])}; the rows that need them are left out")
    table = Table(
        "model",
        "runs",
        "steps",
        "images to answer",
        "hours",
        title="what it takes on this machine, from one timed step",
    )
    for row in found["models"]:
        table.add_row(
            row["model"],
            str(row["runs"]),
            str(row["steps"]),
            str(row["images"]),
            f"{row['hours']:.1f}",
        )
    console.print(table)
