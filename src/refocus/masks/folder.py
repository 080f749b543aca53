"""A folder of images -> a folder of masks.

With a record of how far each can be trusted and a page that shows the worst.

Masks are found or read from a format that people have (`finders`); all else is the same for both.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refocus import locks, outputs
from refocus.data.folders import image_files, refuse_shared_stems
from refocus.data.sources.opened import opened
from refocus.errors import InputError, Message
from refocus.files import read_json, replacing, write_json, write_text
from refocus.masks.finders import HEAD, MakeFind, Outcome, by_backend, taken_over
from refocus.masks.quality import Quality, assess
from refocus.masks.settings import MaskSettings
from refocus.masks.sheet import contact_sheet
from refocus.masks.trust import RECORDS, digest
from refocus.processes import Place, meet
from refocus.progress import track
from refocus.records import appending, drop_partial_line, read_lines, write_line
from refocus.vit.inputs import check_flag, check_path, check_settings
from refocus.vit.loading import pick_device

log = logging.getLogger("refocus")

SHEET = "contact_sheet.html"
USABLE = 0.5  # score from which `tune` uses a mask by default; what it is worth is in docs/masks.md


@dataclass(frozen=True)
class MaskFolder:
    """What `find_masks` left in a folder."""

    folder: Path
    scores: dict[str, float]  # path of a mask below the folder -> its score, the worst first
    skipped: dict[str, str]  # image -> why it has no mask
    usable_from: float  # the score from which `tune` uses a mask by default

    @property
    def below(self) -> int:
        """How many masks `tune` leaves out by default."""
        return sum(score < self.usable_from for score in self.scores.values())


def find_masks(
    images: str | Path,
    out: str | Path,
    settings: MaskSettings | None = None,
    *,
    resume: bool = True,
) -> MaskFolder | None:
    """Find a foreground mask for every image of a folder, or take over masks that people have.

    Writes `out/CLASS/STEM.png`, `masks.json` with a score for each mask, and `contact_sheet.html`,
    which shows the worst.

    Args:
        images: folder of images, CLASS/FILE or files directly.
        out: folder for the masks.
        settings: how; without it, as `refocus masks` does.
        resume: skip what `out` holds already; else it must be a new folder.

    Returns:
        What `out` holds; None in all processes but the first of a `torchrun`.

    Raises:
        InputError: the input cannot be used, or no mask could be made.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example", per_class=1)
        >>> settings = refocus.MaskSettings(source=("png", example.masks))  # masks people have
        >>> made = refocus.find_masks(example.images, "masks", settings)
        >>> len(made.scores), made.folder.name
        (10, 'masks')
    """
    settings, resume = check_settings(settings, MaskSettings), check_flag("resume", resume)
    images, out = opened(check_path(images, "images")).images, check_path(out, "out")
    device = pick_device(settings.device)
    _, source = settings.source or ("", None)
    outputs.refuse_inside(out, {"‹images›": images, "‹source›": source})
    make, kept = (taken_over if settings.source else by_backend)(images, settings)
    outputs.refuse_inside(out, {"‹learn_from›": kept.get("learn_from")})
    group = meet(cpu=device.type == "cpu")
    content = write(images, Path(out), make, kept, resume=resume, group=group)
    if not content:  # a process other than the first
        return None
    found = _as_folder(Path(out).expanduser(), content)
    if not found.scores:
        _undo(found.folder)
        raise InputError(
            f"‹images› {images}: no mask could be made ({next(iter(found.skipped.values()))})"
        )
    return found


def read_masks(folder: Path) -> MaskFolder:
    """What `find_masks` left in a folder before.

    Raises:
        InputError: there is no `masks.json`, or another one.
    """
    content = read_json(folder / RECORDS)
    try:
        return _as_folder(folder, content)
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / RECORDS}: not what refocus writes ({error!r})") from error


def _as_folder(folder: Path, content: dict[str, Any]) -> MaskFolder:
    scores = {r["mask"]: r["score"] for r in content["masks"]}
    skipped = {r["image"]: r["problem"] for r in content["skipped"]}
    return MaskFolder(folder, scores, skipped, content["usable_from"])


def _undo(folder: Path) -> None:
    """Leave nothing of a folder in which no mask could be made."""
    names = (outputs.MANIFEST, outputs.SETTINGS, RECORDS, HEAD)
    for file in (*map(folder.joinpath, names), *folder.glob(".records.*.jsonl")):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else
        folder.rmdir()


def write(
    images: Path,
    out: Path,
    make_find: MakeFind,
    decisive: dict[str, Any],
    *,
    resume: bool,
    group: Place,
) -> dict[str, Any]:
    """Masks of all images below `images` into `out`, what is there already left as it is.

    Under `torchrun` each process takes its share of the list; the first one prepares the folder and
    finishes it.

    Args:
        images: the folder of images.
        out: the folder of masks.
        make_find: from all files and the output folder to the finder; the first process calls it
            before the others.
        decisive: what a resumed start must share with the first one.
        resume: go on in a folder that is there.
        group: the processes that share the list.

    Returns:
        the content of `masks.json`.
    """
    images, out = images.resolve(), out.expanduser()
    files = image_files(images)
    refuse_shared_stems(_by_folder(files))
    with locks.released(out):
        return _written(images, out, files, make_find, decisive, resume=resume, group=group)


def _written(
    images: Path,
    out: Path,
    files: list[Path],
    make_find: MakeFind,
    decisive: dict[str, Any],
    *,
    resume: bool,
    group: Place,
) -> dict[str, Any]:
    if group.first:
        folder = outputs.resumable(out, resume, {"images": str(images), **decisive})
        _clean(folder)
        _refuse_replaced(folder, images, files)
        (folder / outputs.MANIFEST).unlink(missing_ok=True)  # it says that all is complete
        find = make_find(files, folder)
    group.wait()
    if not group.first:
        folder = out
        find = make_find(files, folder)
    done = set(_made(folder))
    left = [f for f in files if _mask_name(f, images) not in done][group.rank :: group.count]
    if done and group.first:
        log.info("%s: %d masks already exist", out, len(done))
    group.wait()  # all have read before any writes
    record = folder / f".records.{group.rank}.jsonl"
    with appending(record) as lines:
        for outcome in track(find(left), "masks", len(left), shown=group.first):
            write_line(lines, _keep(outcome, _mask_name(outcome.image, images), folder))
            lines.flush()
    group.wait()
    return _conclude(folder, images, files) if group.first else {}


def _by_folder(files: list[Path]) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for file in files:
        folders.setdefault(str(file.parent), []).append(file)
    return folders


def _mask_name(image: Path, images: Path) -> str:
    return image.relative_to(images).with_suffix(".png").as_posix()


def _keep(outcome: Outcome, name: str, folder: Path) -> dict[str, Any]:
    """Write a mask so that it is there whole or not at all, and give its record."""
    if outcome.mask is None:
        problem = Message(outcome.problem)
        log.warning("skipped: %s", problem)
        return {
            "image": str(outcome.image),
            "mask": name,
            "made": time.time_ns(),
            "problem": str(problem),
        }
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        outcome.mask.save(partial, format="PNG")
    small = outcome.mask.copy()
    small.thumbnail(
        (512, 512), Image.Resampling.NEAREST
    )  # shape can be judged small, and connected parts are quick to find
    quality: Quality = assess(np.asarray(small) > 127, outcome.agreement, outcome.edges)
    return {
        "image": str(outcome.image),
        "mask": name,
        "made": time.time_ns(),
        "digest": digest(target),
        "of": digest(outcome.image),
        **asdict(quality),
    }


def _made(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of the masks that are there, by the path of the mask."""
    return {r["mask"]: r for r in _records(folder) if (folder / r["mask"]).exists()}


def _refuse_replaced(folder: Path, images: Path, files: list[Path]) -> None:
    """Stop where an image is another than its mask was made of; earlier versions kept no digest."""
    made = _made(folder)
    known = {file: made.get(_mask_name(file, images), {}).get("of") for file in files}
    if replaced := [file for file, before in known.items() if before and digest(file) != before]:
        mask = folder / _mask_name(replaced[0], images)
        raise InputError(
            f"{replaced[0]}: was changed since its mask {mask} was made, as {len(replaced)} of "
            f"{len(made)} were; remove such masks, and they are made again, or name a new folder"
        )


def _records(folder: Path) -> list[dict[str, Any]]:
    """All records of all processes; of two for one image the later counts."""
    latest: dict[str, dict[str, Any]] = {}
    for file in folder.glob(".records.*.jsonl"):
        for record in read_lines(file):
            if record["made"] >= latest.get(record["mask"], record)["made"]:
                latest[record["mask"]] = record
    return list(latest.values())


def _clean(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for file in folder.glob(".records.*.jsonl"):
        drop_partial_line(file)
    for file in folder.rglob("*.partial"):
        file.unlink()


def _conclude(folder: Path, images: Path, files: list[Path]) -> dict[str, Any]:
    """masks.json (worst first), the contact sheet and, last, the manifest."""
    present = {_mask_name(f, images) for f in files}
    records = [
        {k: v for k, v in r.items() if k != "made"}
        for r in _records(folder)
        if r["mask"] in present
    ]
    made = sorted((r for r in records if "score" in r), key=lambda r: (r["score"], r["mask"]))
    skipped = sorted((r for r in records if "problem" in r), key=lambda r: r["mask"])
    content = {"usable_from": USABLE, "masks": made, "skipped": skipped}
    write_json(folder / RECORDS, content)
    if made:
        write_text(folder / SHEET, contact_sheet(made, folder, images, usable=USABLE))
    outputs.finish(folder, "masks", count=len(made), unreadable=tuple(r["image"] for r in skipped))
    return content
