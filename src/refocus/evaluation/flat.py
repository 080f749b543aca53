"""ImageNet's validation images in one folder, as they are shipped, with a file of their labels."""

from __future__ import annotations

import logging
from pathlib import Path

from refocus.data.listing import listing, say_left_out
from refocus.data.tables import read_table
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
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a file of labels ({first_line(error)})") from error
    if lacking := [image.name for image in found.images if image.stem not in labels]:
        raise InputError(f"{file}: gives no label for {lacking[0]}")
    log.info("%s: labels are read from %s", root, file)
    return [Sample(image, labels[image.stem]) for image in found.images]


def _labels(file: Path, names: list[str]) -> dict[str, int]:
    """Stem of an image -> ImageNet's index."""
    if file.suffix == ".csv":
        table = read_table(file, ("imageid", "predictionstring"), str(file))
        rows = [(row["imageid"], row["predictionstring"].split()[0]) for row in table]
    else:
        lines = [words for line in read_text(file).splitlines() if (words := line.split())]
        if all(len(words) == 1 for words in lines):
            rows = list(zip(_in_order(names), _alone(lines, len(names)), strict=True))
        elif short := next((words for words in lines if len(words) == 1), None):
            raise ValueError(f"its line {short[0]!r} has no label; must be NAME LABEL")
        else:
            rows = [(words[0], words[1]) for words in lines]
    return {Path(name).stem: _index(label) for name, label in rows}


def _alone(lines: list[list[str]], count: int) -> list[str]:
    """The labels of lines that name no images."""
    if len(lines) != count:
        raise ValueError(f"{len(lines)} labels for {count} images")
    if lines[0][0].isdigit():
        raise ValueError("numbers without names, so it is unknown which numbering they follow")
    return [words[0] for words in lines]


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
