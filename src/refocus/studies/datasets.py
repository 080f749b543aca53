"""What a study runs on: the paper's data sets, or the user's own folder and model.

The paper's are named by one TOML file.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from refocus.data import shift_folders
from refocus.data.folders import class_folders, folder_samples, scan
from refocus.data.sampling import chosen
from refocus.data.trained import gone_images, say_left_out, trained_images, without
from refocus.errors import InputError, first_line
from refocus.evaluation.plan import SEGMENTS
from refocus.evaluation.suites import SUITES, TestSet, open_suite
from refocus.files import read_text
from refocus.fingerprints import Copies, of_file, of_model, of_tree
from refocus.masks.trust import masked
from refocus.records import Sample
from refocus.studies.paper import MODELS
from refocus.tuning.presets import presets

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger("refocus")
KINDS = ("annotated", "unsupervised")  # of masks
MASK_SCORE = 0.5  # masks that `refocus masks` gave a lower score are no part of a study
SPLIT = "split"  # below OUT: links to the halves of one ImageFolder
CURVES = (
    "location",
    "rotation",
    "size",
)  # shifts of the user's own images, in the place of SI-Score
MASKED = "test images with masks"  # of the user's own, whose maps are measured
LIKE = {  # a suite of the user's own -> the paper's nearest
    "natural": "imagenet",
    "mixed-rand": "objectnet",
    "location": "si-location",
    "rotation": "si-rotation",
    "size": "si-size",
    MASKED: SEGMENTS,
}


@dataclass(frozen=True)
class Ground:
    """models: name -> timm name or folder.

    train, val: ImageFolders. masks: kind -> folder, for `train`. suites: name -> folder or file.
    own: the user's images rather than the paper's sets. test_masks: for maps on the user's own test
    images. trained: images that no number may be about, as a model was trained on them. gone: as of
    `refocus.data.trained.gone_images`.
    """

    models: dict[str, str]
    train: Path
    masks: dict[str, Path]
    suites: dict[str, Path]
    own: bool
    val: Path | None = None
    val_masks: Path | None = None
    test_masks: Path | None = None
    mask_polarity: str = "ask"
    recipe: dict[str, Any] = field(default_factory=dict)  # fields of every Recipe
    trained: frozenset[Path] = frozenset()
    gone: Mapping[str, str] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """How models are tuned and measured: as the published code does, or as is right."""
        return str(self.recipe.get("protocol", "standard"))

    def like(self, suite: str) -> str:
        """The suite of the paper to compare with."""
        return LIKE.get(suite, suite)

    def tests(self, suite: str, model: nn.Module) -> dict[str, TestSet]:
        """Level -> test set; only curves have more than one level."""
        with said_by_file(self.own):
            return self._tests(suite, model)

    def _tests(self, suite: str, model: nn.Module) -> dict[str, TestSet]:
        root = self.suites[suite]
        if self.own and suite in CURVES:
            return {
                level.name: open_suite(suite, level, model, protocol=self.protocol)
                for level in sorted(p for p in root.iterdir() if p.is_dir())
            }
        tests = open_suite(suite, root, model, protocol=self.protocol)
        samples = self.untrained(tests.samples, f"‹suites› {suite}={root}")
        kept = {s.image for s in samples}
        left_out = tuple(s.image for s in tests.samples if s.image not in kept)
        return {"": replace(tests, samples=samples, left_out=left_out)}

    def untrained(self, samples: list[Sample], shown: str) -> list[Sample]:
        """The samples that a number may be about; shown: where they lie, for the error."""
        return without(samples, self.trained, shown, self.gone)


@contextmanager
def said_by_file(own: bool) -> Iterator[None]:
    """Errors about a test set of the paper name the table of the file, not an option."""
    try:
        yield
    except InputError as error:
        if own or "‹suites›" not in error.marked:
            raise
        said = error.marked.replace("‹suites›", "[suites]")
        raise InputError(f"‹data›: {said}") from error


# --- the paper's data sets ----------------------------------------------------------------------


def read_toml(file: Path, wanted: Sequence[str] = MODELS) -> Ground:
    """The paper's data sets from a TOML file; nothing is opened yet.

    Raises:
        InputError: unreadable, a key that is not known, or neither images nor masks to train on.
    """
    try:
        content = tomllib.loads(read_text(file.expanduser()))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"‹data› {file}: not a readable TOML file ({first_line(error)})"
        ) from error
    _refuse_unknown(content, file)
    train = content.get("train", {})
    if "images" not in train:
        raise InputError(
            f"‹data› {file}: [train] needs images, the ImageNet training images that have masks"
        )
    if not any(kind in train for kind in KINDS):
        raise InputError(f"‹data› {file}: [train] needs masks: {' or '.join(KINDS)}")
    if len(alone := [key for key in ("val", "val_masks") if key in train]) == 1:
        missing = "val_masks" if alone == ["val"] else "val"
        raise InputError(
            f"‹data› {file}: [train] names {alone[0]} without {missing}; validation needs both"
        )
    place = file.expanduser().resolve().parent  # relative paths are meant from the file
    known = {name: row["timm"] for name, row in presets().items() if "timm" in row}
    for name, ref in content.get("models", {}).items():
        folder = place / Path(ref).expanduser()
        known[name] = str(folder) if folder.is_dir() else ref

    def path(key: str) -> Path | None:
        return place / Path(train[key]).expanduser() if key in train else None

    return Ground(
        models={name: known[name] for name in wanted if name in known},
        train=place / Path(train["images"]).expanduser(),
        masks={kind: place / Path(train[kind]).expanduser() for kind in KINDS if kind in train},
        suites={
            name: place / Path(where).expanduser()
            for name, where in content.get("suites", {}).items()
        },
        own=False,
        val=path("val"),
        val_masks=path("val_masks"),
        recipe={"protocol": "paper", "classes": 500, "val_images": 414, "skip_bad": True},
    )


def _refuse_unknown(content: dict[str, Any], file: Path) -> None:
    """Tables and keys that no study knows, and values that are no path or name."""
    legal = {
        "train": ("images", "annotated", "unsupervised", "val", "val_masks"),
        "suites": (*SUITES, SEGMENTS),
        "models": MODELS,
    }
    for table, entries in content.items():
        if table not in legal or not isinstance(entries, dict):
            raise InputError(
                f"‹data› {file}: unknown table [{table}]; choose one of {', '.join(legal)}"
            )
        if unknown := [key for key in entries if key not in legal[table]]:
            raise InputError(
                f"‹data› {file}: unknown key {unknown[0]!r} in [{table}]; choose one of "
                f"{', '.join(legal[table])}"
            )
        for key, value in entries.items():
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                raise InputError(
                    f"‹data› {file}: {key} in [{table}] is {value!r}; must be a path or a name"
                )


def places(ground: Ground) -> dict[str, Any]:
    """Where each of the paper's data sets and models lies, and what is there.

    Of a model's folder its content; of the other folders name, size and time of each file.
    """
    found: dict[str, Any] = {f"models.{k}": of_model(ref) for k, ref in ground.models.items()}
    paths = {"train.images": ground.train, "train.val": ground.val}
    paths |= {"train.val_masks": ground.val_masks}
    paths |= {f"train.{kind}": path for kind, path in ground.masks.items()}
    paths |= {f"suites.{name}": path for name, path in ground.suites.items()}
    given = {name: path for name, path in paths.items() if path is not None}
    # under names of their own: folders of earlier versions hold the paths alone
    content = {f"{name}, files": of_tree(path) for name, path in given.items() if path.exists()}
    return found | {name: str(path) for name, path in given.items()} | content


def named_paths(ground: Ground) -> dict[str, Path | None]:
    """What the file of data sets calls each folder or file -> where it lies."""
    train: dict[str, Path | None] = {"images": ground.train, **ground.masks}
    train |= {"val": ground.val, "val_masks": ground.val_masks}
    return {
        **{f"[train] {name} of ‹data›": path for name, path in train.items()},
        **{f"[suites] {name} of ‹data›": path for name, path in ground.suites.items()},
    }


PAPERS_CLASSES = 919  # that have masks in ImageNet-S


def classes_with_masks(ground: Ground) -> int:
    """How many classes have masks to train on; the paper's where its folders are not here yet."""
    kind = next(iter(ground.masks))
    if not ground.own and not (ground.train.is_dir() and ground.masks[kind].is_dir()):
        return PAPERS_CLASSES
    masks = ground.masks[kind]
    found = folder_samples(ground.train, masks, mask_polarity=ground.mask_polarity)
    return len({s.label for s in masked(found, masks, MASK_SCORE)})


# --- the user's own -----------------------------------------------------------------------------


def own(
    folder: Path,
    models: tuple[dict[str, str], nn.Module],
    masks: dict[str, Path],
    out: Path,
    *,
    most: int,
    seed: int,
    mask_polarity: str = "ask",
    kinds: Sequence[str] = ("mixed-rand", *CURVES),
) -> Ground:
    """The user's images and model.

    FOLDER holds train/, test/ and perhaps val/, or is one ImageFolder, whose every other image then
    becomes a test image. Shifts of the test images are written to OUT/shifts once, curves from
    `most` images.

    models: name -> reference, and the first as it was loaded. masks: kind -> folder of the same
    layout as FOLDER. Images that are no test of the models (`seen_images`) are left out.
    """
    (references, network), folder = models, folder.expanduser()
    seen = seen_images(folder, references.values(), say=False)
    if not (folder / "train").is_dir():
        folder, masks = _split(folder, masks, out / SPLIT, seen)
    first = next(iter(masks.values()))
    found = scan(
        folder / "test", network, masks=first / "test", parameter="on", mask_polarity=mask_polarity
    )
    unseen = [s for s in found if s.image not in seen]
    tests = masked(unseen, first / "test", MASK_SCORE)
    suites = {"natural": folder / "test", **_shifts(tests, out / "shifts", kinds, most, seed)}
    has_val = (folder / "val").is_dir()
    return Ground(
        models=references,
        train=folder / "train",
        masks={kind: root / "train" for kind, root in masks.items()},
        suites=suites,
        own=True,
        val=folder / "val" if has_val else None,
        val_masks=first / "val" if has_val else None,
        test_masks=first / "test",
        mask_polarity=mask_polarity,
        recipe={"skip_bad": True, "mask_polarity": mask_polarity},
        trained=seen,
    )


def seen_images(folder: Path, references: Iterable[str], *, say: bool = True) -> frozenset[Path]:
    """The user's own images that are no test of the models.

    Runs of `refocus tune` trained one of the models on them, or they are copies of images in train/
    or val/. say: notices of how many.
    """
    folder, models = folder.expanduser(), tuple(references)
    apart = (folder / "train").is_dir()
    root = folder / "test" if apart else folder
    files = _images(root)
    trained, gone = trained_images(*models), gone_images(*models)
    tuned = _copies(files, trained, gone.values())
    if say:
        say_left_out({str(root): (len(tuned), len(files))}, trained, gone)
    if not apart:
        return tuned
    parts = [folder / part for part in ("train", "val") if (folder / part).is_dir()]
    learnt = [file for part in parts for file in _images(part)]
    twins = _copies([file for file in files if file not in tuned], learnt)
    if say and twins:
        log.warning(
            "not measured, as they are copies of images in %s: %d of %d in %s",
            " or ".join(f"{part.name}/" for part in parts),
            len(twins),
            len(files),
            root,
        )
    return tuned | twins


def _images(folder: Path) -> list[Path]:
    return [file for files in class_folders(folder, "on").values() for file in files]


def _copies(files: Sequence[Path], of: Iterable[Path], gone: Iterable[str] = ()) -> frozenset[Path]:
    known = Copies(of, gone)
    return frozenset(file for file in files if file in known)


def _shifts(
    tests: Sequence[Sample], out: Path, kinds: Sequence[str], most: int, seed: int
) -> dict[str, Path]:
    """Kind -> folder of the test images with that shift, written where it is not there yet."""
    kept = chosen(tests, most, seed)
    for kind in kinds:
        if not (out / kind).exists():
            some = [s for s in tests if s.image in kept] if kind in CURVES else tests
            _write_shift(some, out, kind, seed)
    return {kind: out / kind for kind in kinds}


def check_own(
    folder: Path,
    network: nn.Module,
    masks: dict[str, Path],
    *,
    mask_polarity: str = "ask",
    seen: frozenset[Path] = frozenset(),
) -> None:
    """What `own` needs, looked at before anything is written; seen: `seen_images`.

    Raises:
        InputError: a folder is missing, a class has too few images, or there is no mask for them.
    """
    folder = folder.expanduser()
    if not (folder / "train").is_dir():
        _check_one_folder(folder, network, masks, mask_polarity, seen)
        return
    if not (folder / "test").is_dir():
        raise InputError(f"‹on› {folder}: has train/ but no test/")
    kind, first = next(iter(masks.items()))
    if (folder / "val").is_dir() != (first / "val").is_dir():
        there, not_there = folder / "val", first / "val"
        if not there.is_dir():
            there, not_there = not_there, there
        raise InputError(
            f"‹on› {folder}: {there} is there and {not_there} is not; validation needs both "
            f"images and masks ({kind}), or remove {there}"
        )
    for kind, root in masks.items():
        for part in ("train", "test"):
            if not (root / part).is_dir():
                raise InputError(
                    f"‹masks› {root}: {part}/ is missing; masks of kind {kind} must be laid out "
                    "as the images are"
                )
            found = scan(
                folder / part,
                network,
                masks=root / part,
                parameter="on",
                mask_polarity=mask_polarity,
            )
            if not (unseen := [s for s in found if s.image not in seen]):
                raise InputError(
                    f"‹on› {folder / part}: a model was trained on each of its {len(found)} "
                    "images, or train/ or val/ holds a copy; must have others"
                )
            masked(unseen, root / part, MASK_SCORE)


def _check_one_folder(
    folder: Path,
    network: nn.Module,
    masks: dict[str, Path],
    mask_polarity: str,
    seen: frozenset[Path] = frozenset(),
) -> None:
    for name, files in _distinct(folder, seen).items():
        if len(files) < 2:
            but = ", beside those that a model was trained on" if seen else ""
            raise InputError(
                f"‹on› {folder / name}: needs two different images or more{but}, for training and "
                "for testing"
            )
    for root in masks.values():
        found = scan(folder, network, masks=root, parameter="on", mask_polarity=mask_polarity)
        masked(found, root, MASK_SCORE)


def _distinct(folder: Path, but: frozenset[Path] = frozenset()) -> dict[str, list[Path]]:
    """The files of every class folder, of each photo the first: copies would be in both halves.

    but: files that are passed over.
    """
    classes = {
        name: [file for file in files if file not in but]
        for name, files in class_folders(folder, "on").items()
    }
    sizes = Counter(file.stat().st_size for files in classes.values() for file in files)
    found: dict[str, list[Path]] = {name: [] for name in classes}
    seen = set[str]()
    for name, files in classes.items():
        for file in files:
            content = of_file(file) if sizes[file.stat().st_size] > 1 else str(file)
            if content not in seen:
                seen.add(content)
                found[name].append(file)
    if copies := sum(map(len, classes.values())) - len(seen):
        log.warning("%s: %d images are copies of others: left out", folder, copies)
    return found


def _write_shift(samples: Sequence[Sample], folder: Path, kind: str, seed: int) -> None:
    partial = folder / f"{kind}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    skipped = shift_folders.write(samples, partial, [kind], seed=seed)["skipped"]
    if skipped:
        name, why = next(iter(skipped.items()))
        log.warning(
            "%s: %d images could not be made of the test images, %s first: %s",
            folder / kind,
            len(skipped),
            name,
            why,
        )
    os.replace(partial / kind, folder / kind)  # it is there whole or not at all
    shutil.rmtree(partial)


def _split(
    folder: Path, masks: dict[str, Path], out: Path, seen: frozenset[Path] = frozenset()
) -> tuple[Path, dict[str, Path]]:
    """One ImageFolder and its masks as links below OUT/split.

    Every other image goes to train/, the rest to test/; `seen` to neither.
    """
    found = {kind: _masks_of(folder, root) for kind, root in masks.items()}
    for name, files in _distinct(folder, seen).items():
        for position, file in enumerate(files):
            part = "test" if position % 2 else "train"
            _link(file, out / "images" / part / name / file.name)
            for kind, of_image in found.items():
                if mask := of_image[file]:
                    _link(mask, out / kind / part / name / mask.name)
    for kind, root in masks.items():
        for part in ("train", "test"):
            if not (out / kind / part).is_dir():
                raise InputError(f"‹masks› {root}: holds no mask for the images of ‹on› {folder}")
            if (root / "masks.json").exists():  # the scores of `refocus masks`
                _link(root / "masks.json", out / kind / part / "masks.json")
    return out / "images", {kind: out / kind for kind in masks}


def _masks_of(folder: Path, root: Path) -> dict[Path, Path | None]:
    """Image -> its mask; `keep`, as what its values mean is asked where they are read."""
    return {s.image: s.mask for s in folder_samples(folder, root, mask_polarity="keep")}


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(file.resolve())


def narrowed(ground: Ground, models: Sequence[str] | None) -> Ground:
    """With some of the models only."""
    if not models:
        return ground
    if unknown := [name for name in models if name not in ground.models]:
        raise InputError(
            f"‹models› {unknown[0]}: unknown here; choose one of {', '.join(ground.models)}"
        )
    return replace(ground, models={name: ground.models[name] for name in models})
