"""Annotations of objects read as classes: an image of objects of one category is of that class."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from refocus.data.listing import EXTENSIONS, hidden, there
from refocus.data.sources.rows import Asked, LeftOut, Row, Source, refuse_unused
from refocus.errors import InputError, first_line
from refocus.files import read_json, read_text

_MOST = 1 << 31  # bytes; COCO's own files have 450 MB
_FLAG = re.compile(r"\s+-?[01]$")
_SEVERAL, _NONE = "images of several classes", "images without an object"


def coco(asked: Asked) -> Source:
    """COCO's JSON: images, annotations with category_id, categories.

    Images are looked for beside the file, in `images`, and in the folder that it is named after
    (`annotations/instances_val2017.json`, `val2017/`).

    Raises:
        InputError: not such a file, or its images are not found.
    """
    refuse_unused(asked, ())
    file = asked.path
    content = read_json(file, most=_MOST)
    refuse_doubled(content, asked.shown)
    classes: dict[str, set[str]] = defaultdict(set)
    try:
        names = {str(c["id"]): str(c["name"]) for c in content["categories"]}
        images = [(str(i["id"]), str(i["file_name"])) for i in content["images"]]
        for annotation in content["annotations"]:
            classes[str(annotation["image_id"])].add(names[str(annotation["category_id"])])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{asked.shown}: not COCO's JSON with images, annotations and categories ({error!r})"
        ) from error
    if not images:
        raise InputError(f"{asked.shown}: lists no images")
    _refuse_other_classes(images, classes, asked.shown)
    root = _image_folder(file, images[0][1], asked.shown)

    def read() -> Iterator[Row | LeftOut]:
        for key, name in images:
            yield _row(classes[key], root / name, asked.shown)

    return Source("COCO annotations", _state(file, [root / name for _, name in images]), read)


def refuse_doubled(content: Any, shown: str) -> None:
    """Stop at an id that two images or two categories of a COCO file have.

    It leaves open whose an annotation is.

    Raises:
        InputError: names `shown` and the id.
    """
    for part in ("images", "categories"):
        rows = content.get(part) if isinstance(content, dict) else None
        known = rows if isinstance(rows, list) else []
        counts = Counter(str(row["id"]) for row in known if isinstance(row, dict) and "id" in row)
        if doubled := [one for one, count in counts.items() if count > 1]:
            raise InputError(
                f"{shown}: two of its {part} have the id {doubled[0]}; each id must be unique"
            )


def _refuse_other_classes(
    images: list[tuple[str, str]], classes: dict[str, set[str]], shown: str
) -> None:
    """Stop at a file that stands under two ids with other objects."""
    before: dict[str, str] = {}
    for key, name in images:
        first = before.setdefault(name, key)
        if classes[first] != classes[key]:
            raise InputError(
                f"{shown}: lists {name} under the ids {first} and {key} with other objects; must "
                "list each image once"
            )


def _image_folder(file: Path, name: str, shown: str) -> Path:
    above, named_after = file.parent.parent, file.stem.partition("_")[2]
    places = [file.parent, file.parent / "images", above, above / "images", above / "JPEGImages"]
    places += [above / named_after, file.parent / named_after] if named_after else []
    for place in places:
        if there(place / name):
            return place
    raise InputError(
        f"{shown}: its images are not found ({name}, looked for in "
        f"{', '.join(dict.fromkeys(map(str, places)))}); put it beside them"
    )


def is_voc(folder: Path) -> bool:
    """Whether a folder is laid out as Pascal VOC is."""
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def voc(asked: Asked) -> Source:
    """Pascal VOC: Annotations/*.xml and JPEGImages; with ?split=, a list of ImageSets/Main.

    Raises:
        InputError: no annotations, or no such list.
    """
    refuse_unused(asked, ("split",))
    root, pictures = asked.path, asked.path / "JPEGImages"
    files = [f for f in sorted((root / "Annotations").glob("*.xml")) if not hidden(f)]
    missing: list[str] = []
    if asked.split is not None:
        known = {f.stem: f for f in files}
        names = _listed(root / "ImageSets" / "Main" / f"{asked.split}.txt", known, asked.shown)
        files = [known[name] for name in names if name in known]
        missing = [name for name in names if name not in known]

    def read() -> Iterator[Row | LeftOut]:
        for file in files:
            names, image = _annotated(file, pictures)
            yield (
                LeftOut("annotations without their image")
                if image is None
                else _row(names, image, asked.shown)
            )
        yield from (LeftOut("names of the list without an annotation") for _ in missing)

    images = [f for f in sorted(pictures.iterdir()) if f.suffix.lower() in EXTENSIONS]
    state = (*_state(root, [*files, *images]), *missing)
    return Source("Pascal VOC annotations", state, read, split=asked.split)


def _listed(file: Path, known: Container[str], shown: str) -> list[str]:
    """Names of a list, each once; a class's list has -1, 0 or 1 after each."""
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{shown}: has no list {file}") from error
    names = [line if line in known else _FLAG.sub("", line) for line in lines]
    return sorted({name for name in names if name})


def _annotated(file: Path, images: Path) -> tuple[set[str], Path | None]:
    """Classes in an image, and its file."""
    try:
        root: Any = ElementTree.fromstring(read_text(file, most=1 << 22))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{file}: not a Pascal VOC annotation ({first_line(error)})") from error
    names = {o.findtext("name", "").strip() for o in root.findall("object")} - {""}
    said = Path(root.findtext("filename", "") or f"{file.stem}.jpg").name
    candidates = [images / said, *(images / f"{file.stem}{e}" for e in EXTENSIONS)]
    return names, next((c for c in candidates if there(c)), None)


def _row(names: set[str], image: Path, shown: str) -> Row | LeftOut:
    if len(names) != 1:
        return LeftOut(_SEVERAL if names else _NONE)
    if not there(image):
        raise InputError(f"{shown}: names {image.name}, and {image} is no file")
    return Row(next(iter(names)), image.name, image)


def _state(place: Path, files: list[Path]) -> tuple[str, ...]:
    known = [f for f in (place, *files) if f == place or there(f)]
    return tuple(f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in known)
