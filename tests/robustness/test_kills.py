"""`kill -9` at random moments: what is left can be continued, as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.makers import make_images
from tests.robustness.dice import LONG, SEED
from tests.robustness.door import Door
from tests.robustness.world import tiny_model

pytestmark = pytest.mark.slow
KILLS = 84 if LONG else 20  # of each command
_VOLATILE = ("manifest.json", "settings.json", "last.pt", "inputs.json")  # dates, and zip's order


@dataclass(frozen=True)
class Command:
    """start: the arguments before `--out OUT`. again: those of the command that goes on."""

    start: str
    again: Callable[[Path], list[object]]


def _resume(out: Path) -> list[object]:
    """A run that had not begun is started again; then it goes on."""
    return ["tune", "--resume", out] if (out / "selection.json").exists() else []


COMMANDS = {
    "tune": Command("tune --model {model} --images {images} --masks {masks} --epochs 4", _resume),
    "evaluate": Command(
        "evaluate --model {model} --against {other} --on own={images} --masks own={masks} "
        "--shift mixed-same,mixed-rand --batch-size 2",
        lambda out: ["--resume"],
    ),
    "audit": Command(
        "audit --model {model} --images {images} --masks {masks} --most 12",
        lambda out: ["--resume"],
    ),
    "masks": Command("masks {images} --from png {masks}", lambda out: []),
    "shifts": Command("shifts {images} --masks {masks} --kind only-fg,mixed-rand", lambda out: []),
    "probe": Command(
        "probe --model {model} --images {images} --kind permutation cutout --most 8",
        lambda out: [],
    ),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kills")
    images, masks = make_images(root)
    model, other = tiny_model(root / "model"), tiny_model(root / "other", seed=1)
    return {"model": model, "other": other, "images": images, "masks": masks}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_ends_as_if_nothing_had_happened(
    name: str, places: dict[str, Path], door: Door, tmp_path: Path
) -> None:
    dice = random.Random(f"{SEED} {name}")
    print(f"seed {SEED}: {KILLS} kills of {name}")
    arguments = COMMANDS[name].start.format(**places).split()
    whole = tmp_path / "whole"
    done = door.run(*arguments, "--out", whole)
    assert done.status == 0, str(done)
    wanted, length = _content(whole), done.seconds
    for number in range(KILLS):
        out = tmp_path / "out"
        killed = door.run(*arguments, "--out", out, after=dice.uniform(0, 1.1 * length))
        moment = f"kill {number} of {name} after {killed.seconds:.2f} s of {length:.2f}"
        if killed.status != 0:
            again = _again(name, arguments, out)
            if dice.random() < 0.3:  # killed once more while it goes on
                door.run(*again, after=dice.uniform(0, length))
                again = _again(name, arguments, out)
            finished = door.run(*again)
            complete = "complete" in finished.err  # killed after the last word
            assert finished.status == 0 or complete, f"{moment}: {finished}"
        assert _content(out) == wanted, moment
        assert _left_behind(out) == [], moment
        shutil.rmtree(out)


def _again(name: str, arguments: list[str], out: Path) -> list[object]:
    more = COMMANDS[name].again(out)
    return more if more[:1] == ["tune"] else [*arguments, "--out", out, *more]


def _content(folder: Path) -> dict[str, str]:
    """Digest of every file that is to be the same, places taken out of the words."""
    found = {}
    for file in _files(folder):
        if file.name not in _VOLATILE:
            content = file.read_bytes().replace(str(folder).encode(), b"OUT")
            if file.suffix == ".json":
                content = json.dumps(_plain(json.loads(content)), sort_keys=True).encode()
            if file.suffix == ".html":  # its pictures hold dates
                content = b"page" if len(content) > 1000 else b"short"
            found[str(file.relative_to(folder))] = blake2b(content).hexdigest()
    return found


def _plain(content: object) -> object:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items() if key != "made"}
    return [_plain(value) for value in content] if isinstance(content, list) else content


def _files(folder: Path) -> Iterator[Path]:
    return (f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith("."))


def _left_behind(folder: Path) -> list[str]:
    """Temporary files, but for the records that `masks` keeps to go on later."""
    names = [f.name for f in folder.rglob("*") if ".partial" in f.name or "-partial-" in f.name]
    return names + [f.name for f in folder.rglob(".refocus-lock")]
