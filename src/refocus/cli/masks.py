"""`refocus masks`: find foreground masks, or take over those that people have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refocus.cli.options import Rows, settings_from, with_settings
from refocus.cli.printing import console
from refocus.masks.settings import MaskSettings

if TYPE_CHECKING:
    from refocus.masks.folder import MaskFolder


@with_settings(
    MaskSettings,
    spelt={"source": "from"},
    beside={"source": Rows("refocus.masks.formats:FORMATS", "Formats")},
)
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
    resume: Annotated[
        bool, typer.Option(hidden=True, help="--no-resume requires a new folder.")
    ] = True,
    **given: Any,
) -> MaskFolder | None:
    """Find foreground masks without annotation, or convert yours.

    Each mask gets a score, and a page shows the worst. Resumes where it stopped. Under `torchrun`
    the images are split over the processes.
    """
    settings = MaskSettings(**settings_from(MaskSettings, given))
    from refocus.masks.folder import SHEET, find_masks  # loads torch

    found = find_masks(images, out, settings, resume=resume)
    if found is None:  # a process other than the first
        return None
    skipped = f", {len(found.skipped)} images skipped (see masks.json)" if found.skipped else ""
    console.print(
        f"{len(found.scores)} masks in {out}{skipped}\n"
        f"{found.below} have a score below {found.usable_from}: `refocus tune` leaves these out\n"
        f"look at the worst: {out / SHEET}",
        soft_wrap=True,
    )
    return found
