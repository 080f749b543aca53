"""`refocus models` and `refocus zero-shot`: which models are supported, and a classifier from class
names alone.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from refocus.cli.printing import console
from refocus.errors import InputError, first_line
from refocus.outputs import write_text


def models(
    out: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown into this new file.")
    ] = None,
) -> None:
    """List the families of Vision Transformers that work, and how to name one with --model."""
    from refocus.vit.families import FAMILIES, REFUSED

    columns = (Column(name, overflow="fold") for name in ("family", "what is read"))
    table = Table(
        *columns, Column("for example, --model", no_wrap=True, min_width=46), show_lines=True
    )
    for name, row in FAMILIES.items():
        table.add_row(name, escape(row.about), escape("\n".join(row.examples) or "a folder"))
    console.print(table)
    console.print(
        "refused: " + "; ".join(f"{name}* ({why})" for name, why in REFUSED.items()), soft_wrap=True
    )
    if out is not None:
        if out.exists():
            raise InputError(f"--out {out}: exists and is not overwritten; name a new file")
        _written(out, lambda: write_text(out, markdown()))


def markdown() -> str:
    """docs/models.md."""
    from refocus.vit.families import FAMILIES, REFUSED

    rows = []
    for name, row in FAMILIES.items():
        examples = ", ".join(f"`{e}`" for e in row.examples) or "a folder"
        rows.append(
            f"| {name} | {row.library} | {', '.join(f'`{c}`' for c in row.classes)} | {row.about} "
            f"| {examples} |"
        )
    text = files("refocus").joinpath("assets", "models.md").read_text(encoding="utf-8")
    return text.format(
        families="\n".join(rows),
        refused="; ".join(f"{name}* ({why})" for name, why in REFUSED.items()),
    )


def zero_shot(
    model: Annotated[
        str,
        typer.Option(
            help="CLIP or SigLIP of transformers: hf:ID, or a folder that save_pretrained wrote."
        ),
    ],
    names: Annotated[
        str, typer.Option(help="Class names: a file with one a line, an ImageFolder, or a,b,c.")
    ],
    out: Annotated[
        Path, typer.Option(help="New folder for the classifier, to be given as --model elsewhere.")
    ],
    templates: Annotated[
        Path | None,
        typer.Option(
            help="Sentences with {} for the class, one a line; else the 80 of CLIP's paper."
        ),
    ] = None,
) -> None:
    """Make a classifier of CLIP or SigLIP from class names, without training; then `audit`, `tune`,
    ... take it as a --model.
    """
    from refocus.vit import zero_shot as maker
    from refocus.vit.loading import save

    folders = class_names(names)
    sentences = maker.templates() if templates is None else _lines("--templates", templates)
    if bad := [s for s in sentences if s.count("{}") != 1 or "{{" in s]:
        raise InputError(f"--templates: {bad[0]!r} must hold {{}} once, where the class name goes")
    if out.exists():
        raise InputError(f"--out {out}: exists and is not overwritten; name a new folder")
    _written(out, lambda: out.parent.mkdir(parents=True, exist_ok=True))
    made = maker.build(
        model.removeprefix("hf:"), folders, [spoken(name) for name in folders], sentences
    )
    save(made, out)
    console.print(f"{len(folders)} classes, {len(sentences)} sentences each: {out}", soft_wrap=True)


def class_names(given: str) -> list[str]:
    """From a file, the folders of an ImageFolder, or the text itself."""
    path = Path(given).expanduser()
    try:
        folder, file = path.is_dir(), path.is_file()
    except OSError:  # a long list is no file name
        folder = file = False
    if folder:
        found = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    else:
        found = (
            _lines("--names", path)
            if file
            else [part.strip() for part in given.split(",") if part.strip()]
        )
    if len(found) < 2 or len(set(found)) < len(found):
        raise InputError(
            f"--names {given}: {len(found)} names; at least two, each once, from a file, a folder "
            "or a,b,c"
        )
    return found


def _lines(option: str, file: Path) -> list[str]:
    try:
        found = [
            line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{option} {file}: cannot be read as text ({first_line(error)})"
        ) from error
    if not found:
        raise InputError(f"{option} {file}: is empty")
    return found


def _written(out: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({first_line(error)})") from error


def spoken(name: str) -> str:
    """A folder's name as a word: WordNet ids by ImageNet's table, underscores as spaces."""
    from timm.data import ImageNetInfo

    if len(name) == 9 and name[0] == "n" and name[1:].isdigit():
        known = ImageNetInfo("imagenet-22k")
        if name in known.label_names():
            return str(known.label_name_to_description(name)).split(",")[0]
    return name.replace("_", " ")
