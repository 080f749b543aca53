"""Every reader against files made at random from right ones: it reads them or says why not."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import resource
import signal
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from refocus import InputError
from refocus.data.images import read_image, read_mask
from refocus.data.sources.opened import opened
from refocus.data.sources.unpack import CACHE
from refocus.evaluation import cues, maps, plan
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.stored import read_evaluation
from refocus.evaluation.suites import open_suite
from refocus.files import read_json
from refocus.masks import trust
from refocus.masks.formats import reader
from refocus.outputs import manifest_of
from refocus.records import read_lines
from refocus.studies.datasets import read_toml
from refocus.tuning.checkpoints import Checkpoint, Position, keep_epochs
from refocus.tuning.recipe import recipe_of
from refocus.tuning.results import results_of
from refocus.tuning.selection import from_json
from refocus.vit import loading
from refocus.vit.classes import read_names
from tests.makers import NAMES, matlab_file
from tests.robustness.dice import LONG, SEED
from tests.robustness.world import World

pytestmark = pytest.mark.slow
EXAMPLES = 700 if LONG else 25  # of each reader
MEMORY = 8 << 30  # bytes that a reader may take
SECONDS = 10  # that it may take

# --- what is made ---------------------------------------------------------------------------------

WORDS = st.sampled_from(["", "ant", "../x", "\x00", "ä", "NaN", "9" * 30, "a" * 300, "/dev/zero"])
NUMBERS = st.sampled_from([0, -1, 1, 2**31, -(2**63), 2**63, 10**12, 0.5, 1e300, -0.0, 3e10, 1e7])
LEAVES = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | WORDS | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, content: Any) -> Any:
    """JSON content with one to three places replaced, removed or doubled."""
    copy = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        spots = list(_spots(copy))
        if not spots:
            return draw(VALUES)
        place, key = draw(st.sampled_from(spots))
        what = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        if what == "replace":
            place[key] = draw(VALUES)
        elif what == "remove":
            del place[key]
        elif isinstance(place, list):
            place.insert(key, place[key])
        else:
            place[draw(WORDS)] = place[key]
    return copy


def _spots(content: Any) -> Iterator[tuple[Any, Any]]:
    """All places of JSON content, as what holds them and where in it."""
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else range(len(content))
        for key in keys:
            yield content, key
            yield from _spots(content[key])


@st.composite
def torn(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's bytes, cut off, overwritten, or with others between them."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        what = draw(st.sampled_from(["cut", "flip", "insert", "remove", "fill"]))
        length = draw(st.integers(1, 16))
        if what == "cut":
            content = content[:at]
        elif what == "remove":
            content = content[:at] + content[at + length :]
        elif what == "fill":
            byte = draw(st.sampled_from([b"\x00", b"\xff", b"9", b"-", b",", b'"', b"["]))
            content = content[:at] + byte * length + content[at + length :]
        else:
            new = draw(st.binary(min_size=1, max_size=length))
            keep = at if what == "insert" else at + len(new)
            content = content[:at] + new + content[keep:]
    return content


def texts(content: Any) -> st.SearchStrategy[bytes]:
    """Files of JSON: mostly another content, sometimes other bytes."""
    whole = json.dumps(content).encode()
    written = changed(content).map(lambda c: json.dumps(c).encode("utf-8", "replace"))
    return st.one_of(written, written, torn(whole))


# --- what is right, and who reads it --------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """name: of the file below the folder that is read. right: its content. read: reads the folder.

    json: whether its structure is changed rather than its bytes.
    """

    name: str
    right: Any
    read: Callable[[Path], object]
    json: bool = False

    @property
    def files(self) -> st.SearchStrategy[bytes]:
        return texts(self.right) if self.json else torn(self.right)


def _picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    grey = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((9, 8), np.uint8))
    file = io.BytesIO()
    Image.fromarray(grey).convert(mode).save(file, kind, **options)
    return file.getvalue()


IMAGE = Path("ant/0.png")  # what a mask is asked for; 40 x 36 pixels


def _mask_from(kind: str, name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        return reader(kind, folder / name if name else folder)(IMAGE, (40, 36))

    return read


COCO = {
    "images": [{"id": 1, "file_name": "ant/0.png", "width": 40, "height": 36}],
    "categories": [{"id": 1, "name": "ant"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 20, 1, 20, 20]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "bbox": [2, 3, 10, 10],
            "segmentation": {"size": [36, 40], "counts": [100, 200, 1140]},
        },
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 10]},
    ],
}
VOC = b"""<annotation><size><width>40</width><height>36</height></size><object><name>ant</name>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>22</ymax></bndbox></object></annotation>"""
BOXES = b"image,xmin,ymin,xmax,ymax\nant/0.png,2,3,20,21\nbee/1.png,1,1,5,5\n"
STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0123abcd-0.png"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {"original_width": 40, "original_height": 36, "value": value}
                    for value in (
                        {"points": [[10, 10], [50, 10], [50, 60]], "polygonlabels": ["ant"]},
                        {"x": 5, "y": 5, "width": 20, "height": 30, "rectanglelabels": ["ant"]},
                        {"x": 50, "y": 50, "radiusX": 9, "radiusY": 5, "rotation": 20},
                        {"rle": [0, 0, 22, 128, 57, 27, 255], "brushlabels": ["ant"]},
                    )
                ],
            }
        ],
    }
]
CVAT = b"""<annotations><image name="ant/0.png" width="40" height="36">
<polygon label="ant" points="3,2;9,2;9,6"/><box label="ant" xtl="3" ytl="2" xbr="9" ybr="6"/>
<ellipse label="ant" cx="9" cy="9" rx="4" ry="2" rotation="30"/>
<mask label="ant" rle="0, 24" left="3" top="2" width="6" height="4"/></image></annotations>"""
SAM = {
    "image": {"file_name": "ant/0.png", "width": 40, "height": 36},
    "annotations": [{"segmentation": {"size": [36, 40], "counts": [100, 200, 1140]}}],
}
LISTED = {
    "images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}],
    "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
}
TABLE = b"path,label,group\n0.png,ant,snow\n1.png,bee,sand\n"
LINES = b'{"path": "0.png", "label": "ant"}\n{"path": "1.png", "label": 1}\n'
GROUPS = b"image,group\nant/0.png,snow\nbee/1.png,sand\n"
TOML = b'[train]\nimages = "a"\nannotated = "b"\n[suites]\nimagenet = "c"\n[models]\nDeiT-S = "d"\n'
MASKS = {
    "usable_from": 0.5,
    "masks": [{"mask": "ant/0.png", "digest": "0011223344556677", "score": 0.7}],
    "skipped": [],
}


def _archive() -> bytes:
    """A tar file of two images with their labels."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number, label in enumerate((b"ant", b"bee")):
            for ending, content in (("png", _picture("PNG")), ("cls", label)):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _source(name: str) -> Callable[[Path], object]:
    """Images from a file that lists or holds them, beside two images."""

    def read(place: Path) -> object:
        for number in range(2):
            (place / f"{number}.png").write_bytes(_picture("PNG"))
        return opened(place / name)

    return read


@pytest.fixture(scope="module")
def targets(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    root = tmp_path_factory.mktemp("fuzz")
    folder = world.root / "model"
    model = loading.load(folder)
    suite = open_suite("own", world.root / "images", model)
    run = {
        name: read_json(world.root / "run" / f"{name}.json")
        for name in ("recipe", "selection", "results", "manifest")
    }
    proof = {
        name: read_json(world.root / "proof" / f"{name}.json") for name in ("settings", "results")
    }
    state = Checkpoint(model, *_optimizer(model))
    state.write(root / "last.pt", Position(epoch=3, best=1, loss=0.5))
    lines = (world.root / "proof" / "records" / "own" / "standard.model.jsonl").read_bytes()
    lines += json.dumps({"image": "bee/x.png", "unreadable": "why"}).encode() + b"\n"
    history = json.dumps({"epoch": 0, "lr": 1e-6, "train": {"loss": 1}, "validation": {"loss": 1}})
    found = {
        f"image {kind}": Target(f"a.{kind.lower()}", _picture(kind), _image(f"a.{kind.lower()}"))
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    }
    found |= {
        f"mask {mode}": Target(
            "a.png", _picture("PNG", mode), lambda place: read_mask(place / "a.png")
        )
        for mode in ("L", "P", "1", "RGBA", "I;16")
    }
    return found | {
        "coco": Target("a.json", COCO, _mask_from("coco", "a.json"), json=True),
        "voc-boxes": Target("0.xml", VOC, _mask_from("voc-boxes", "")),
        "label-studio": Target("a.json", STUDIO, _mask_from("label-studio", "a.json"), json=True),
        "cvat": Target("a.xml", CVAT, _mask_from("cvat", "a.xml")),
        "sam": Target("a.json", SAM, _mask_from("sam", ""), json=True),
        "table": Target("t.csv", TABLE, _source("t.csv")),
        "lines of JSON": Target("t.jsonl", LINES, _source("t.jsonl")),
        "listed by COCO": Target("t.json", LISTED, _source("t.json"), json=True),
        "archive": Target("t.tar", _archive(), _source("t.tar")),
        "boxes": Target("a.csv", BOXES, _mask_from("boxes", "a.csv")),
        "png": Target("0.png", _picture("PNG", "P"), _mask_from("png", "")),
        "imagenet-s": Target("0.png", _picture("PNG"), _mask_from("imagenet-s", "")),
        "recipe": Target("recipe.json", run["recipe"], recipe_of, json=True),
        "selection": Target("a.json", run["selection"], _json(from_json), json=True),
        "settings": Target("a.json", proof["settings"], _json(plan.plan_of), json=True),
        "results": Target("results.json", run["results"], results_of, json=True),
        "evaluation": Target(
            "results.json",
            proof["results"],
            lambda place: read_evaluation(place / "results.json"),
            json=True,
        ),
        "manifest": Target("manifest.json", run["manifest"], manifest_of, json=True),
        "records": Target("a.jsonl", lines, lambda p: read_predictions(p / "a.jsonl")),
        "lines": Target("a.jsonl", lines, lambda p: list(read_lines(p / "a.jsonl"))),
        "history": Target("a.jsonl", history.encode(), lambda p: keep_epochs(p / "a.jsonl", 3)),
        "masks.json": Target("masks.json", MASKS, trust.scores, json=True),
        "study": Target("a.toml", TOML, lambda place: read_toml(place / "a.toml")),
        "mapping": Target(
            "a.json",
            {"cat": ["ant", 1], "dog": ["cat"]},
            lambda place: cues.mapping(model, place / "a.json"),
            json=True,
        ),
        "groups": Target("a.csv", GROUPS, lambda place: plan.read_groups(place / "a.csv", suite)),
        "names": Target("a.txt", "\n".join(NAMES).encode(), lambda p: read_names(p / "a.txt")),
        "config": Target(
            "config.json",
            json.loads((folder / "config.json").read_text()),
            functools.partial(_load_with, folder),
            json=True,
        ),
        "weights": Target(
            "model.safetensors",
            (folder / "model.safetensors").read_bytes(),
            functools.partial(_load_with, folder),
        ),
        "matlab": Target(
            "a.mat",
            matlab_file(root / "gtsegs_ijcv.mat").read_bytes(),
            lambda place: _segments(maps.Gtsegs(place / "a.mat", model)),
        ),
        "checkpoint": Target(
            "last.pt", (root / "last.pt").read_bytes(), lambda p: state.read(p / "last.pt")
        ),
    }


def _image(name: str) -> Callable[[Path], object]:
    return lambda place: read_image(place / name)


def _json(read: Callable[[Any], object]) -> Callable[[Path], object]:
    return lambda place: read(read_json(place / "a.json"))


def _load_with(folder: Path, place: Path) -> object:
    """The model of the folder, one of its two files replaced."""
    for name in ("config.json", "model.safetensors"):
        if not (place / name).exists():
            (place / name).symlink_to(folder / name)
    return loading.load(place)


def _segments(opened: maps.Gtsegs) -> object:
    return [opened(sample) for sample in opened.samples()]


def _optimizer(model: nn.Module) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.85)


TARGETS = (
    *(f"image {kind}" for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")),
    *(f"mask {mode}" for mode in ("L", "P", "1", "RGBA", "I;16")),
    *("coco", "voc-boxes", "boxes", "png", "imagenet-s", "recipe", "selection", "settings"),
    *("label-studio", "cvat", "sam", "table", "lines of JSON", "listed by COCO", "archive"),
    *(
        "results",
        "evaluation",
        "manifest",
        "records",
        "lines",
        "history",
        "masks.json",
        "study",
        "mapping",
        "groups",
    ),
    *("names", "config", "weights", "checkpoint", "matlab"),
)


@pytest.fixture
def _little_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("_little_memory")
def test_a_reader_reads_or_says_why_not(
    name: str, targets: dict[str, Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    place = tmp_path / "place"
    place.mkdir()
    target = targets[name]
    print(f"seed {SEED}: {EXAMPLES} files for {name}")
    right = json.dumps(target.right).encode() if target.json else target.right
    _try(target, right, place)
    quiet = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )

    @quiet
    @seed(SEED)
    @given(target.files)
    def check(content: bytes) -> None:
        _try(target, content, place)

    check()


def _try(target: Target, content: bytes, folder: Path) -> None:
    """Anything but an InputError of one line comes out of here."""
    for left in folder.iterdir():
        left.unlink()
    (folder / target.name).write_bytes(content)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.suppress(_OneLineError):
            warnings.simplefilter("ignore")
            _read(target, folder)
    finally:
        signal.alarm(0)


class _OneLineError(Exception):
    pass


def _read(target: Target, folder: Path) -> None:
    try:
        target.read(folder)
    except InputError as error:
        if "\n" in str(error).strip():
            raise
        raise _OneLineError from error


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")
