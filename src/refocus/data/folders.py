"""Folders of images and of their masks.

Which output of a model each class folder means, and which mask belongs to which image.
"""

from __future__ import annotations

import difflib
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn

from refocus.data.listing import Listing, by_stem, holds_images, listing, say_left_out
from refocus.data.polarity import ASK, polarity
from refocus.data.sources.unpack import stated_classes
from refocus.errors import InputError, Message
from refocus.records import Sample
from refocus.vit.classes import (
    by_order,
    class_count,
    folder_names,
    imagenet_index,
    imagenet_outputs,
    loose,
    name_outputs,
    named_by,
    order_of,
    plain,
)

log = logging.getLogger("refocus")


# --- listing ------------------------------------------------------------------------------------


def class_folders(root: Path, parameter: str) -> dict[str, list[Path]]:
    """class name -> sorted image files of an ImageFolder (`root/class/file`).

    parameter: what the caller calls this folder, for the messages.

    Raises:
        InputError: no class folders, one without images, one with folders of images in it, or two
            of one name. What else lies there is passed over, with a notice that counts it.
    """
    root = Path(root)
    top = listing(root, parameter)
    if top.images and top.folders:
        top.left_out["images beside the class folders"] += len(top.images)
    return _class_folders(root, top, parameter)


def _class_folders(root: Path, top: Listing, parameter: str) -> dict[str, list[Path]]:
    if not top.folders:
        raise InputError(
            f"‹{parameter}› {root}: holds no class folders; images are expected as "
            f"{root}/CLASS/FILE"
        )
    inside = {folder: listing(folder, parameter) for folder in top.folders}
    for folder, found in inside.items():
        if nested := next((f for f in found.folders if holds_images(f)), None):
            _refuse_nested(root, top.folders, folder, nested, parameter)
        if not found.images:
            there = ", ".join(found.left_out) or "nothing"
            raise InputError(
                f"‹{parameter}› {folder}: class folder without images (it holds {there}; images "
                "are recognized by their extension, see docs/inputs.md)"
            )
    say_left_out(root, [top.left_out, *(found.left_out for found in inside.values())])
    return _by_name({folder: list(found.images) for folder, found in inside.items()}, parameter)


def _refuse_nested(
    root: Path, folders: Sequence[Path], folder: Path, nested: Path, parameter: str
) -> None:
    """A folder above the class folders was given, or images lie deeper than CLASS/FILE."""
    if not any(listing(f, parameter).images for f in folders):
        known = {f.name.lower(): f for f in folders}
        meant = next((known[n] for n in ("val", "valid", "test", "train") if n in known), folder)
        raise InputError(
            f"‹{parameter}› {root}: holds {', '.join(f.name for f in folders[:3])}, which hold "
            f"the class folders; did you mean {meant}?"
        )
    raise InputError(
        f"‹{parameter}› {nested}: its images lie deeper than CLASS/FILE and would be left out; "
        f"move them into {folder}, or the folder out of {root}"
    )


def _by_name(files: dict[Path, list[Path]], parameter: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    places: dict[Path, Path] = {}
    for folder, inside in files.items():
        if plain(folder.name) in found:
            raise InputError(f"‹{parameter}› {folder}: two folders have this name; rename one")
        if (same := places.setdefault(folder.resolve(), folder)) != folder:
            raise InputError(
                f"‹{parameter}› {folder}: is the same folder as {same}, by a link; an image must "
                "have one class"
            )
        found[plain(folder.name)] = inside
    return found


def image_files(root: Path, parameter: str = "images") -> list[Path]:
    """Sorted image files of a folder: in its class folders, and in it directly."""
    top = listing(root, parameter)
    if top.images and not top.folders:
        say_left_out(root, [top.left_out])
        return list(top.images)
    below = [f for files in _class_folders(root, top, parameter).values() for f in files]
    return [*top.images, *below]


# --- which output a class folder means ----------------------------------------------------------


def outputs_of(
    model: nn.Module,
    folders: Sequence[str],
    shown: str,
    *,
    all_needed: bool = True,
    stated: Sequence[str] = (),
) -> dict[str, int]:
    """Class folder -> the model's output for it.

    The names that a model carries decide; the first folder that a model without names meets gives
    it its names, where one order of them is known: that of the source, where it states one.

    Args:
        model: a classifier.
        folders: names of class folders, in any order.
        shown: what to call the folder in messages.
        all_needed: False: class folders that the model does not know are not in the answer.
        stated: classes in the order of the numbers that the source of the folders gives them.

    Raises:
        InputError: no classifier, unknown class folders, or a model without names and folders that
            libraries order differently.
    """
    if class_count(model) < 1:
        raise InputError("the model has no classifier head (0 classes); give a classifier")
    if folder_names(model) is None:
        _name_by_folders(model, folders, shown, stated)
    names = folder_names(model) or []
    index = {plain(name): i for i, name in enumerate(names)}
    imagenet = imagenet_outputs(model)
    found: dict[str, int] = {}
    taken: dict[int, str] = {}
    for folder in folders:
        position = index.get(plain(folder))
        if position is None and imagenet and (number := imagenet_index(folder)) is not None:
            position = imagenet[number]
        if position is None:
            if all_needed:
                raise InputError(_unknown(shown, folder, names, named_by(model)))
            continue
        if (other := taken.setdefault(position, folder)) != folder:
            raise InputError(
                f"{shown}: the folders {other} and {folder} are the same class of the model; "
                "merge them"
            )
        found[folder] = position
    return found


def _unknown(shown: str, folder: str, names: Sequence[str], named: str | None) -> str:
    near = [name for name in names if loose(name) == loose(folder)]
    near = near or difflib.get_close_matches(folder, names, n=1, cutoff=0.8)
    known = ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
    hint = "give ‹names› if its outputs have other names"
    if named is not None:
        hint = f"it took these names from {named}; load it anew if they are others, or give ‹names›"
    hint = f"did you mean {near[0]!r}?" if near else hint
    return f"{shown}/{folder}: the model knows no class {folder!r}; it knows {known}; {hint}"


_KEPT = ", which it keeps as its names from now on"


def _name_by_folders(
    model: nn.Module, folders: Sequence[str], shown: str, stated: Sequence[str] = ()
) -> None:
    """Give a model without names those of the folders that it was trained on."""
    order = order_of(model)
    if order is None and stated and _named_as_stated(model, folders, shown, stated):
        return
    if len(folders) != class_count(model):
        raise InputError(
            f"{shown}: the model carries no class names and has {class_count(model)} outputs, but "
            f"there are {len(folders)} class folders; give one folder for each output, or ‹names›"
        )
    strings, natural = _ordered(folders, "string", shown), _ordered(folders, "natural", shown)
    if order is None and strings != natural:
        pairs = enumerate(zip(strings, natural, strict=True))
        first = next(i for i, (one, other) in pairs if one != other)
        raise InputError(
            f"{shown}: the model carries no class names, and libraries order its folders in two "
            f"ways: {_start(strings)} as strings (torchvision, transformers), {_start(natural)} by "
            f"number and without case (timm), so output {first} is {strings[first]} or "
            f"{natural[first]}; give ‹order=string› or ‹order=natural›, whichever it was trained "
            "with, or ‹names› with one name for each output"
        )
    name_outputs(model, natural if order == "natural" else strings, shown, by=shown)
    log.warning(
        Message(
            f"the model carries no class names: its outputs are taken as the folders of {shown} in "
            f"{'sorted' if strings == natural else order} order{_KEPT}"
        )
    )


def _ordered(folders: Sequence[str], order: str, shown: str) -> list[str]:
    """Folders in an order, as names are compared.

    Raises:
        InputError: the order depends on whether letters with accents are stored as one character or
            as two, which a copy from one system to another may change.
    """
    found = [list(map(plain, by_order(folders, order)))]
    for form in ("NFC", "NFD"):
        stored = by_order([unicodedata.normalize(form, name) for name in folders], order)
        found.append([plain(name) for name in stored])
    other = next((names for names in found if names != found[0]), None)
    if other is not None:
        place = next(
            i for i, names in enumerate(zip(found[0], other, strict=True)) if len({*names}) > 1
        )
        raise InputError(
            f"{shown}: the model carries no class names, and the order of its folders depends on "
            f"how letters with accents are stored, as one character or as two, so output {place} "
            f"is {found[0][place]} or {other[place]}; give ‹names› with one name for each output"
        )
    return found[0]


def _named_as_stated(
    model: nn.Module, folders: Sequence[str], shown: str, stated: Sequence[str]
) -> bool:
    """Give a model the classes of a source in its own order, where it has an output for each.

    Raises:
        InputError: it has another number of outputs, and the order of the names is another.
    """
    known = set(map(plain, folders))
    if known <= set(stated) and len(stated) == class_count(model):
        name_outputs(model, stated, shown, by=shown)
        log.warning(
            Message(
                f"the model carries no class names: its outputs are taken as the {len(stated)} "
                f"classes of {shown} in the order of their numbers ({_start(stated)}){_KEPT}"
            )
        )
        return True
    if (numbered := [name for name in stated if name in known]) != sorted(numbered):
        raise InputError(
            f"{shown}: the model carries no class names and has {class_count(model)} outputs, but "
            f"its source numbers {len(stated)} classes, not in alphabetical order "
            f"({_start(stated)}); give ‹names› with one name for each output"
        )
    return False


def _start(names: Sequence[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def name_by_folders(model: nn.Module, root: str | Path) -> None:
    """Give a model without names those of the class folders of `root`, as `scan` does."""
    if folder_names(model) is None:
        root = Path(root).expanduser()
        folders = class_folders(root, "images")
        _outputs(model, folders, f"‹images› {root}", root)


def _outputs(
    model: nn.Module, folders: dict[str, list[Path]], shown: str, root: Path
) -> dict[str, int]:
    """Name of a class folder -> output; folders are ordered by their names as they are stored."""
    stored = [files[0].parent.name for files in folders.values()]
    found = outputs_of(model, stored, shown, stated=stated_classes(root))
    return {plain(name): output for name, output in found.items()}


# --- samples ------------------------------------------------------------------------------------


def scan(
    root: str | Path,
    model: nn.Module,
    *,
    masks: str | Path | None = None,
    parameter: str = "images",
    mask_polarity: str = ASK,
) -> list[Sample]:
    """All images of a folder with the model's labels, and with masks where a folder is given.

    mask_polarity: "ask", "keep" or "invert", see `polarity`.

    Raises:
        InputError: a class folder that the model does not know, a mask that belongs to no image, or
            masks that seem to be something else.
    """
    root = Path(root).expanduser()
    folders = class_folders(root, parameter)
    shown = f"‹{parameter}› {root}"
    index = _outputs(model, folders, shown, root)
    names = folder_names(model) or []
    known = set(index.values())
    if absent := [name for i, name in enumerate(names) if i not in known]:
        log.info(
            "%s: no folder for %d of the model's %d classes (%s)",
            root,
            len(absent),
            len(names),
            _start(absent, 3),
        )
    return _samples(folders, index, masks, parameter, mask_polarity)


def folder_samples(root: Path, masks: Path, *, mask_polarity: str = ASK) -> list[Sample]:
    """All images of a folder with their masks, labelled by the position of their class folder.

    No model is asked.
    """
    folders = class_folders(root.expanduser(), "images")
    return _samples(
        folders, {name: i for i, name in enumerate(folders)}, masks, "images", mask_polarity
    )


def _samples(
    folders: dict[str, list[Path]],
    labels: dict[str, int],
    masks: str | Path | None,
    parameter: str,
    mask_polarity: str,
) -> list[Sample]:
    if masks is None:
        return [Sample(file, labels[name]) for name, files in folders.items() for file in files]
    parameter = _masks_parameter(parameter)
    root = Path(masks).expanduser()
    found = _mask_files(root, folders, parameter)
    samples = [
        Sample(file, labels[name], found[name].get(plain(file.stem)))
        for name, files in folders.items()
        for file in files
    ]
    inverted = polarity(samples, root, parameter, mask_polarity)
    return [Sample(s.image, s.label, s.mask, inverted=inverted) for s in samples]


def refuse_shared_stems(folders: dict[str, list[Path]]) -> None:
    """a.jpg and a.png of one class would share the mask a.png."""
    for files in folders.values():
        stems = Counter(plain(f.stem) for f in files)
        if doubled := [f for f in files if stems[plain(f.stem)] > 1]:
            raise InputError(
                f"{doubled[0]} and {doubled[1].name}: would share the mask {doubled[0].stem}.png; "
                "rename one"
            )


def _masks_parameter(images: str) -> str:
    """What the caller calls the folder of masks of the images that it calls so."""
    return "val_masks" if images == "val" else "masks"


def _mask_files(
    root: Path, folders: dict[str, list[Path]], parameter: str
) -> dict[str, dict[str, Path]]:
    """Class name -> image stem -> mask file.

    A mask without its image is an error: a misspelt name would be lost.
    """
    classes = {plain(f.name): f for f in listing(root, parameter).folders}
    if strangers := sorted(set(classes) - set(folders)):
        log.info(
            "%s: masks of %d classes without images are not read (%s)",
            root,
            len(strangers),
            ", ".join(strangers[:3]),
        )
    refuse_shared_stems(folders)
    found: dict[str, dict[str, Path]] = {}
    left_out: list[Counter[str]] = []
    for name, files in folders.items():
        inside = listing(classes[name], parameter) if name in classes else None
        found[name] = by_stem(inside.images if inside else ())
        left_out += [inside.left_out] if inside else []
        if orphans := sorted(set(found[name]) - _stems(files)):
            raise InputError(
                f"‹{parameter}› {found[name][orphans[0]]}: mask without an image of that name in "
                f"class {name!r}"
            )
    say_left_out(root, left_out)
    return found


def _stems(files: Iterable[Path]) -> set[str]:
    return {plain(file.stem) for file in files}
