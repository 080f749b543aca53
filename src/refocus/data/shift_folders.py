"""Write shifted images as folders that any tool can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from refocus import outputs
from refocus.data.shifts import KINDS, Shift, shifts
from refocus.errors import InputError
from refocus.files import read_json, replacing, write_json
from refocus.progress import track
from refocus.records import Sample


class _Jobs(Dataset[tuple[str, "Image.Image | None", str]]):
    def __init__(self, jobs: list[tuple[Shift, Sample, str]]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, position: int) -> tuple[str, Image.Image | None, str]:
        shift, sample, name = self.jobs[position]
        try:
            return name, shift(sample), ""
        except InputError as error:
            return name, None, str(error)


def write(
    samples: Sequence[Sample],
    folder: Path,
    names: Sequence[str],
    *,
    seed: int,
    workers: int = 0,
    backgrounds: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write each kind as an ImageFolder, `KIND/CLASS/STEM.png`.

    Curves are written as `KIND/LEVEL/CLASS/STEM.png`.

    What is there already stays, so an interrupted run resumes. PNG keeps every pixel: evaluating
    the folder and evaluating on the fly give the same answers.

    Returns:
        {"written": kind -> number of images, "skipped": image -> reason}
    """
    jobs: list[tuple[Shift, Sample, str]] = []
    (folder / outputs.MANIFEST).unlink(missing_ok=True)  # it says that all is complete
    record = folder / "shifts.json"
    known = read_json(record) if record.exists() else {"written": {}, "skipped": {}}
    counts = {}
    for kind in names:
        levels = shifts(samples, kind, seed, backgrounds=backgrounds)
        counts[kind] = sum(len(some) for _, some in levels)
        for shift, some in levels:
            place = Path(kind, shift.level) if shift.level else Path(kind)
            jobs += [
                (shift, s, str(place / s.image.parent.name / f"{s.image.stem}.png")) for s in some
            ]
    left = [job for job in jobs if not (folder / job[2]).exists()]
    skipped = {}
    loader = DataLoader(_Jobs(left), batch_size=None, num_workers=workers)
    for name, picture, problem in track(loader, "shifts", len(left)):
        if picture is None:
            skipped[name] = problem
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            picture.save(partial, format="PNG")
    for name in skipped:
        counts[Path(name).parts[0]] -= 1
    earlier = {
        name: reason
        for name, reason in known["skipped"].items()
        if Path(name).parts[0] not in counts
    }
    written = {**known["written"], **counts}
    about = {name: KINDS[name].about for name in written}
    content = {"seed": seed, "written": written, "skipped": {**earlier, **skipped}, "kinds": about}
    write_json(record, content)
    outputs.finish(folder, "shifts", seed=seed)
    return content
