"""`refocus evaluate` and `refocus shifts`: the proof, and the shifts it is made on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from refocus import runs
from refocus.errors import InputError

console = Console()


def evaluate(
    model: Annotated[str, typer.Option(help="timm name, hf:ID, torchvision:NAME or a model folder.")],
    out: Annotated[Path, typer.Option(help="New folder: results.json and one JSON line per image.")],
    on: Annotated[
        list[str],
        typer.Option(
            help="NAME=PATH; more may follow. An ImageFolder of your classes under any name, or a known test set: imagenet, "
            "imagenet-v2, imagenet-a, imagenet-r, imagenet-sketch, objectnet, si-location, si-rotation, si-size, "
            "cue-conflict, or imagenet-segmentation (gtsegs_ijcv.mat)."
        ),
    ],
    more: Annotated[list[str] | None, typer.Argument(help="Further NAME=PATH.", metavar="[NAME=PATH]...")] = None,
    against: Annotated[str | None, typer.Option(help="The model before; adds paired differences with 95 % intervals.")] = None,
    masks: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH, masks of a suite of your own: adds map scores, and allows --shift.")
    ] = None,
    shift: Annotated[
        str | None, typer.Option(help="Comma-separated shifts made from images and masks (`refocus shifts --help`), or all.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="standard, paper or both (docs/evaluation.md). Default: both for known sets, standard for your own."),
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option(help="NAME=CSV with columns image,group: adds accuracy per group, the worst first.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help='For cue-conflict with your own classes: JSON {"cat": ["tabby", ...], ...}.')
    ] = None,
    faithfulness: Annotated[
        int, typer.Option(help="With --masks: insertion and deletion on so many images (32 forward passes each).", min=0)
    ] = 0,
    mask_score: Annotated[float, typer.Option(help="Leave out masks that `refocus masks` gave a lower score.", min=0, max=1)] = 0.5,
    most: Annotated[
        int | None, typer.Option(help="With --masks: at most so many images, spread over the classes; else all.", min=2)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.", min=1)] = 64,
    workers: Annotated[int, typer.Option(help="Processes that decode images.", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in an unfinished --out.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Accuracy on test sets, your own shifts and known ones, before and after, with one record per image."""
    from refocus import plans, proof, shifted
    from refocus.models import pick_device

    plan = plans.Plan(
        suites=pairs("--on", [*on, *(more or [])]),
        masks=pairs("--masks", masks or []),
        shifts=tuple(shifted.kinds(shift, "--shift")) if shift else (),
        protocols=_protocols(protocol),
        groups=pairs("--groups", groups or []),
        mapping=mapping,
        faithful=faithfulness,
        mask_score=mask_score,
        most=most,
    )
    models = plans.load_models(model, against, pick_device(device))
    plans.check(models, plan)
    settings = plans.settings(model, against, plan, seed)
    if resume and (out.expanduser() / runs.MANIFEST).exists():
        raise InputError(f"--out {out}: is complete, nothing to resume")
    folder = runs.resumable(out, resume, settings)
    how = plans.How(folder, batch_size=batch_size, workers=workers, seed=seed, trained=plans.trained_classes(model))
    entries = proof.prove(models, plan, how)
    places = {"model": runs.resolved(model), "against": against and runs.resolved(against)}
    runs.write_json(folder / "results.json", {**places, "seed": seed, "suites": entries})
    runs.finish(folder, "evaluate", seed=seed)
    print_table(entries)
    skipped = sum(len(entry.get("unreadable", ())) for entry in entries.values())
    note = f"{skipped} unreadable images skipped\n" if skipped else ""
    console.print(f"{note}results: {folder / 'results.json'}\na page:  refocus report {folder}", soft_wrap=True)


def print_table(entries: dict[str, Any]) -> None:
    """Accuracies, shifts, cue and map scores of `results.json`, with differences where there is a model before."""
    from refocus.tables import accuracy_rows, other_rows

    accuracies = (accuracy_rows(entries), ["suite", "protocol", "n", "top-1, %"])
    others = (other_rows(entries), ["suite", "measure", "n", "value"])
    for rows, head in (accuracies, others):
        if not rows:
            continue
        paired = any(row.before is not None for row in rows)
        columns = [*head, "95 % interval", *(["before", "difference", "95 % interval"] if paired else [])]
        table = Table(*(Column(title, overflow="fold") for title in columns), box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            cells = [row.name, row.protocol if "protocol" in head else row.measure, str(row.n), row.value_text, row.interval_text]
            table.add_row(*cells, *([row.before_text, row.difference_text, row.difference_interval_text] if paired else []))
        console.print(table)


def shifts(
    images: Annotated[Path, typer.Argument(help="ImageFolder: CLASS/FILE.")],
    masks: Annotated[Path, typer.Option(help="Foreground masks: CLASS/FILE-STEM.png.")],
    out: Annotated[Path, typer.Option(help="Folder for the shifts, each an ImageFolder: OUT/KIND/CLASS/FILE-STEM.png.")],
    kind: Annotated[
        str,
        typer.Option(
            help="Comma-separated, or all. Background (ImageNet-9): only-fg, only-bg, no-fg, mixed-same, mixed-rand, mixed-next. "
            "Object (SI-Score), a folder for each level: location, size, rotation. Sanity check: outline."
        ),
    ] = "only-fg,only-bg,mixed-same,mixed-rand",
    mask_score: Annotated[float, typer.Option(help="Leave out masks that `refocus masks` gave a lower score.", min=0, max=1)] = 0.5,
    workers: Annotated[int, typer.Option(help="Processes that make images.", min=0)] = 0,
    resume: Annotated[bool, typer.Option(help="Skip what is done; --no-resume insists on a new folder.")] = True,
    seed: Annotated[int, typer.Option(help="Seed: whose background each object gets.", min=0)] = 0,
) -> None:
    """Make distribution shifts from images and masks: other backgrounds, and the object moved, scaled and turned."""
    from refocus import shifted
    from refocus.images import folder_samples
    from refocus.plans import masked

    names = shifted.kinds(kind)
    samples = masked(folder_samples(images, masks), masks, mask_score)
    for name in names:
        shifted.shifts(samples, name, seed)  # what cannot be made is said before anything is written
    places = {"images": str(images.expanduser().resolve()), "masks": str(masks.expanduser().resolve())}
    files = {"images": runs.state(images), "masks": runs.state(masks)}  # who lends a background depends on the listing
    folder = runs.resumable(out, resume, {**places, "files": files, "seed": seed, "mask_score": mask_score})
    content = shifted.write(samples, folder, names, seed=seed, workers=workers)
    table = Table("shift", "images", "what it is")
    for name, count in content["written"].items():
        table.add_row(name, str(count), shifted.KINDS[name].about)
    console.print(table)
    note = f"{len(content['skipped'])} images skipped (see shifts.json)\n" if content["skipped"] else ""
    console.print(f"{note}each is an ImageFolder below {folder}", soft_wrap=True)


def pairs(option: str, given: list[str]) -> dict[str, Path]:
    """NAME=PATH options as a dictionary."""
    found: dict[str, Path] = {}
    for pair in given:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path or "/" in name or name in (".", ".."):
            raise InputError(f"{option} {pair}: must be NAME=PATH, with a name that can be a file name")
        if name in found:
            raise InputError(f"{option} {pair}: the name {name!r} is used twice")
        found[name] = Path(path).expanduser()
    return found


def _protocols(given: str | None) -> tuple[str, ...] | None:
    legal = {None: None, "both": ("standard", "paper"), "standard": ("standard",), "paper": ("paper",)}
    if given not in legal:
        raise InputError(f"--protocol {given}: legal are standard, paper, both")
    return legal[given]
