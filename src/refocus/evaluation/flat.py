"""ImageNet's validation images in one folder, as they are shipped, with a file of their labels."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from refocus.data.listing import listing, say_left_out
from refocus.errors import InputError, first_line
from refocus.files import read_text
from refocus.records import Sample
from refocus.vit.classes import imagenet_index, natural

log = logging.getLogger("refocus")

LABEL_FILES = (
    "LOC_val_solution.csv",  # Kaggle: ImageId,PredictionString
    "val.txt",  # Caffe: NAME INDEX
    "imagenet_2012_validation_synset_labels.txt",  # TensorFlow: WordNet ids in order of images
)


def flat_samples(root: Path, shown: str) -> list[Sample]:
    """Images that lie in a folder directly, with ImageNet's indices from a file beside or above.

    Raises:
        InputError: no such file, it lacks an image, or a label is none of ImageNet's.
    """
    found = listing(root, "suites")
    say_left_out(root, [found.left_out])
    places = [folder / name for folder in (root, root.parent) for name in LABEL_FILES]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(
            f"{shown}: its images are not in class folders, and no file gives their labels; put "
            f"one of {', '.join(LABEL_FILES)} beside them, or sort them into WNID/FILE"
        )
    try:
        labels = _labels(file, [image.name for image in found.images])
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file}: not a file of labels ({first_line(error)})") from error
    if lacking := [image.name for image in found.images if image.stem not in labels]:
        raise InputError(f"{file}: gives no label for {lacking[0]}")
    log.info("%s: labels are read from %s", root, file)
    return [Sample(image, labels[image.stem]) for image in found.images]


def _labels(file: Path, names: list[str]) -> dict[str, int]:
    """Stem of an image -> ImageNet's index."""
    with io.StringIO(read_text(file), newline="") as stream:
        if file.suffix == ".csv":
            rows = [
                (r["ImageId"], r["PredictionString"].split()[0]) for r in csv.DictReader(stream)
            ]
        else:
            lines = [line.split() for line in stream if line.strip()]
            if all(len(line) == 1 for line in lines):
                if len(lines) != len(names):
                    raise ValueError(f"{len(lines)} labels for {len(names)} images")
                rows = [(name, line[0]) for name, line in zip(_in_order(names), lines, strict=True)]
                if rows[0][1].isdigit():
                    raise ValueError(
                        "numbers without names, so it is unknown which numbering they follow"
                    )
            else:
                rows = [(line[0], line[1]) for line in lines]
    return {Path(name).stem: _index(label) for name, label in rows}


def _in_order(names: list[str]) -> list[str]:
    """Names of images in the one order that lines without names can follow."""
    by_text, by_number = sorted(names), sorted(names, key=natural)
    if by_text != by_number:
        one, other = next(
            pair for pair in zip(by_text, by_number, strict=True) if pair[0] != pair[1]
        )
        raise ValueError(
            f"its lines name no images, and it is unknown whether {other} or {one} comes first; "
            "the images must be called as in ILSVRC2012_val_00000001.JPEG, with leading zeros"
        )
    return by_text


def _index(label: str) -> int:
    found = int(label) if label.isdigit() else imagenet_index(label)
    if found is None or not 0 <= found < 1000:
        raise ValueError(f"{label!r} is neither one of ImageNet's WordNet ids nor from 0 to 999")
    return found
