"""Test sets: from a folder in a data set's own layout to images with ImageNet labels.

Under one of two protocols.

A row of `SUITES` says how the folders of a set map to class indices; any other name is an
ImageFolder of the model's classes.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageOps
from timm.data import ImageNetInfo
from torch import Tensor, nn

from refocus.data.folders import class_folders, scan
from refocus.data.images import read_image
from refocus.data.listing import listing
from refocus.data.transforms import eval_image, paper_image
from refocus.errors import InputError, first_line
from refocus.evaluation.flat import flat_samples
from refocus.files import read_json, read_text
from refocus.plugins import Table
from refocus.records import Sample
from refocus.vit.classes import class_count, imagenet_index, imagenet_outputs, label_names

PROTOCOLS = {
    "standard": "as the field reports: the model's own preprocessing; A and R among their 200 "
    "classes; ObjectNet any mapped class, "
    "border cut",
    "paper": "as the paper's code: shorter side to 256/224 of the input, bilinear, mean = std = "
    "0.5; all 1000 classes; ObjectNet's "
    "first mapped class, border left on",
}
Labels = dict[
    str, tuple[int, ...]
]  # class folder -> the ImageNet indices that count as right, the first one first


@dataclass(frozen=True)
class Suite:
    """labels: folder of the set -> class folder -> indices.

    images: folder of the class folders below it. among: timm's list of the classes to which
    `standard` restricts the answer. border: pixels that `standard` cuts off each side. strict: a
    class folder without a label is an error; otherwise it is no part of the test.
    """

    labels: Callable[[Path], Labels]
    about: str
    images: str = "."
    among: str = ""
    border: int = 0
    strict: bool = True


def synsets(_root: Path) -> Labels:
    """Folders are WordNet ids."""
    return {name: (i,) for i, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def numbers(_root: Path) -> Labels:
    """Folders are class indices without leading zeros.

    Their alphabetical order is not that of the classes.
    """
    return {str(i): (i,) for i in range(1000)}


def si_score(_root: Path) -> Labels:
    """Folders are object names, with the table that SI-Score publishes."""
    table = json.loads(
        files("refocus").joinpath("assets", "si_score_labels.json").read_text(encoding="utf-8")
    )
    return {name: (index,) for name, index in table.items()}


def objectnet(root: Path) -> Labels:
    """ObjectNet's own four mapping files.

    Folder -> label -> ImageNet names -> line in the 2012 list -> torch's index.
    """
    mappings = root / "mappings"
    label_of = read_json(mappings / "folder_to_objectnet_label.json")
    names_of = read_json(mappings / "objectnet_to_imagenet_1k.json")
    number_of = read_json(mappings / "pytorch_to_imagenet_2012_id.json")
    try:
        lines = read_text(mappings / "imagenet_to_label_2012_v2").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{mappings / 'imagenet_to_label_2012_v2'}: cannot be read ({first_line(error)}); it "
            "comes with ObjectNet"
        ) from error
    index_of = {number: int(index) for index, number in number_of.items()}
    torch_index = {
        line.strip(): index_of[i] for i, line in enumerate(lines) if i in index_of
    }  # lines count from 0
    try:
        return {
            folder: tuple(torch_index[name] for name in names_of[label].split("; "))
            for folder, label in label_of.items()
            if label in names_of
        }
    except KeyError as error:
        raise InputError(
            f"{mappings}: the mapping files do not fit each other (no ImageNet class {error})"
        ) from error


_OWN = {
    "imagenet": Suite(synsets, "ImageNet validation set: WNID/FILE"),
    "imagenet-v2": Suite(numbers, "ImageNet-V2 (Recht et al. 2019): 0 ... 999/FILE"),
    "imagenet-a": Suite(
        synsets,
        "ImageNet-A (Hendrycks et al. 2021), 200 classes: WNID/FILE",
        among="imagenet_a_indices.txt",
    ),
    "imagenet-r": Suite(
        synsets,
        "ImageNet-R (Hendrycks et al. 2021), 200 classes: WNID/FILE",
        among="imagenet_r_indices.txt",
    ),
    "imagenet-sketch": Suite(synsets, "ImageNet-Sketch (Wang et al. 2019): WNID/FILE"),
    "objectnet": Suite(
        objectnet,
        "ObjectNet (Barbu et al. 2019): images/OBJECT/FILE and mappings/",
        images="images",
        border=2,
        strict=False,
    ),
    "si-location": Suite(si_score, "SI-Score, object location (Djolonga et al. 2021): OBJECT/FILE"),
    "si-rotation": Suite(si_score, "SI-Score, object rotation: OBJECT/FILE"),
    "si-size": Suite(si_score, "SI-Score, object size: OBJECT/FILE"),
}
SUITES = Table("refocus.suites", _OWN, Suite)
OTHERS = ("cue-conflict", "imagenet-segmentation")  # known test sets, but not of classification


@dataclass(frozen=True)
class Borderless:
    """Reads an image without so many pixels on each side."""

    border: int

    def __call__(self, sample: Sample) -> Image.Image:
        """The image of a sample."""
        return ImageOps.crop(read_image(sample.image), self.border)


def plain(sample: Sample) -> Image.Image:
    """Reads an image as it is."""
    return read_image(sample.image)


@dataclass(frozen=True)
class TestSet:
    """What to ask a model.

    Samples below `root`, how each is read, what the model sees of it, and among which class indices
    it answers (None: all). Images below `root` that are not asked about as a model was tuned on
    them still tell whose a line of a table is.
    """

    __test__ = False  # not a test of pytest's

    root: Path
    samples: list[Sample]
    transform: Callable[[Image.Image], Tensor]
    read: Callable[[Sample], Image.Image] = plain
    among: tuple[int, ...] | None = None
    left_out: tuple[Path, ...] = ()


def refuse_near_miss(name: str, path: str | Path, parameter: str = "suites") -> None:
    """Stop where a test set is called nearly like a known one, which has rules of its own.

    Raises:
        InputError: it is called so but for its case, -, _, spaces and dots; names the known set.
    """
    known = (*SUITES, *OTHERS)
    if name not in known and (meant := [other for other in known if _loose(other) == _loose(name)]):
        raise InputError(
            f"‹{parameter}› {name}={path}: the known test set of nearly that name is spelled "
            f"{meant[0]}; must be spelled so, or a folder of your own have another name"
        )


def _loose(name: str) -> str:
    return re.sub(r"[-_ .]", "", name.lower())


def open_suite(
    name: str,
    path: str | Path,
    model: nn.Module,
    *,
    protocol: str = "standard",
    masks: Path | None = None,
    mask_polarity: str = "ask",
) -> TestSet:
    """Open a row of `SUITES`, or under any other name an ImageFolder of the model's classes.

    Raises:
        InputError: no such folder or protocol, a name that is nearly a known set's, a class that is
            not in the set, or a model without ImageNet's 1000 classes.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"‹protocol› {protocol}: choose one of {', '.join(PROTOCOLS)}")
    root = Path(path).expanduser()
    transform = (eval_image if protocol == "standard" else paper_image)(model)
    refuse_near_miss(name, path)
    if name not in SUITES:
        return TestSet(
            root,
            scan(root, model, masks=masks, parameter="suites", mask_polarity=mask_polarity),
            transform,
        )
    if masks is not None:
        raise InputError(
            f"‹masks› {name}={masks}: only for your own image folders; give the set under another "
            "name"
        )
    outputs = imagenet_outputs(model)
    if outputs is None:
        raise InputError(
            f"‹suites› {name}={path}: the model has {class_count(model)} classes"
            f"{_but(model)}, this set needs ImageNet's 1000, by name or in their order"
        )
    suite = SUITES[name]
    if not root.is_dir():
        raise InputError(f"‹suites› {name}={path}: no such folder")
    among = _indices(suite.among) if suite.among else None
    samples = _labelled(suite, name, root, among, all_count=protocol == "standard")
    samples = [
        replace(s, label=outputs[s.label], also=tuple(outputs[i] for i in s.also)) for s in samples
    ]
    among = None if among is None else tuple(outputs[i] for i in among)
    if protocol == "paper":
        return TestSet(root / suite.images, samples, transform)
    read = Borderless(suite.border) if suite.border else plain
    return TestSet(root / suite.images, samples, transform, read, among)


def _but(model: nn.Module) -> str:
    names = label_names(model)
    return f" such as {', '.join(names[:3])}" if names and len(names) == 1000 else ""


def _labelled(
    suite: Suite, name: str, root: Path, among: tuple[int, ...] | None, *, all_count: bool
) -> list[Sample]:
    labels = {
        folder: indices
        for folder, indices in suite.labels(root).items()
        if among is None or indices[0] in among
    }
    shown = f"‹suites› {name}={root}"
    if suite.labels is synsets and (top := listing(root, "suites")).images and not top.folders:
        return _among(flat_samples(root, shown), labels, suite, shown)
    folders = class_folders(root / suite.images, "suites")
    if suite.labels in (synsets, numbers):
        labels |= _other_spellings(folders, labels)
    if suite.strict and (unknown := [f for f in folders if f not in labels]):
        raise InputError(
            f"‹suites› {name}={root / unknown[0]}: not a class of this set; expected {suite.about}"
        )
    samples = [
        Sample(file, labels[folder][0], also=labels[folder][1:] if all_count else ())
        for folder, inside in folders.items()
        if folder in labels
        for file in inside
    ]
    if not samples:
        raise InputError(
            f"‹suites› {name}={root}: none of its class folders has a label; expected {suite.about}"
        )
    return samples


def _among(samples: list[Sample], labels: Labels, suite: Suite, shown: str) -> list[Sample]:
    """The samples, whose labels must all be of the set's classes."""
    legal = {indices[0] for indices in labels.values()}
    if strange := [s for s in samples if s.label not in legal]:
        raise InputError(
            f"{shown}: {len(strange)} of its {len(samples)} images are of no class of this set, "
            f"{strange[0].image.name} (label {strange[0].label}) first; expected {suite.about}"
        )
    return samples


def _other_spellings(folders: Iterable[str], labels: Labels) -> Labels:
    """Folders of an ImageNet set that are called by another of its conventions.

    0007 for 7, WordNet ids for numbers, English names.
    """
    legal = set(labels.values())
    found = {f: int(f) if f.isdecimal() else imagenet_index(f) for f in folders if f not in labels}
    return {f: (i,) for f, i in found.items() if i is not None and (i,) in legal}


def _indices(file: str) -> tuple[int, ...]:
    """Class indices from one of timm's own lists."""
    content = pkgutil.get_data("timm.data", f"_info/{file}")
    assert content is not None
    return tuple(int(line) for line in content.split())
