"""`kill -9` at random moments: what is left can be continued, as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from tests.makers import make_images
from tests.robustness.dice import LONG, SEED
from tests.robustness.door import Done, Door
from tests.robustness.world import tiny_model

pytestmark = pytest.mark.slow
KILLS = 72 if LONG else 6  # of each command
PATIENCE = 280  # seconds of a command on a machine that has other work to do
_VOLATILE = ("manifest.json", "settings.json", "last.pt", "inputs.json")  # dates, and zip's order


COMMANDS = {  # the same one goes on where it was cut off
    "run": "run --model {model} --images {images} --masks {masks} --shots 1 --epochs 1 --most 8",
    "tune": "tune --model {model} --images {images} --masks {masks} --epochs 3",
    "evaluate": "evaluate --model {model} --against {other} --on own={images} --masks own={masks} "
    "--shift mixed-same,mixed-rand --batch-size 2",
    "audit": "audit --model {model} --images {images} --masks {masks} --most 12",
    "masks": "masks {images} --from png {masks}",
    "shifts": "shifts {images} --masks {masks} --kind only-fg,mixed-rand",
    "explain": "explain {images}/ant {images}/bee --model {model}",
    "probe": "probe --model {model} --images {images} --kind permutation cutout --most 8",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kills")
    images, masks = make_images(root, count=4)
    model, other = tiny_model(root / "model"), tiny_model(root / "other", seed=1)
    return {"model": model, "other": other, "images": images, "masks": masks}


def _kill(dice: random.Random, length: float) -> dict[str, Any]:
    return {"after": dice.uniform(0, 1.1 * length)}


def _signal(dice: random.Random, length: float) -> dict[str, Any]:
    return {
        "after": dice.uniform(0, length),
        "send": dice.choice([signal.SIGINT, signal.SIGTERM]),
    }


def _disk(dice: random.Random, _length: float) -> dict[str, Any]:
    """A disk that is full: no file may become larger than so many bytes."""
    return {"limits": {"RLIMIT_FSIZE": int(2 ** dice.uniform(5, 19))}}


REST = max(2, KILLS // 4)
HOW = {"killed": (_kill, KILLS), "stopped": (_signal, REST), "no room": (_disk, REST)}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_cut_off_ends_as_if_nothing_had_happened(
    name: str, how: str, places: dict[str, Path], door: Door, tmp_path: Path
) -> None:
    dice = random.Random(f"{SEED} {name} {how}")
    cut, times = HOW[how]
    if name == "run" and not LONG:  # it runs four commands that have rows of their own
        times = min(times, 3)
    print(f"seed {SEED}: {name} is {how} {times} times")
    arguments = COMMANDS[name].format(**places).split()
    whole = tmp_path / "whole"
    done = door.run(*arguments, "--out", whole, timeout=PATIENCE)
    assert done.status == 0, str(done)
    wanted, length = _content(whole), done.seconds
    for number in range(times):
        out = tmp_path / "out"
        ended = door.run(*arguments, "--out", out, timeout=PATIENCE, **cut(dice, length))
        moment = f"{number}: {how} after {ended.seconds:.2f} s of {length:.2f}: {ended}"
        _must_say_it(ended, how, moment)
        if ended.status != 0:
            again = [*arguments, "--out", out]
            if how == "killed" and dice.random() < 0.3:  # and once more while it goes on
                door.run(*again, timeout=PATIENCE, after=dice.uniform(0, length))
            finished = door.run(*again, timeout=PATIENCE)
            assert finished.status == 0, f"{moment}\nthen {finished}"
            assert _left_behind(out) == [], moment
        assert _content(out) == wanted, moment
        shutil.rmtree(out)


def _must_say_it(ended: Done, how: str, moment: str) -> None:
    """A documented status and one line; a command that had ended before says nothing."""
    if how == "killed" or ended.status == 0:
        return
    said = {130: "stopped by SIGINT", 143: "stopped by SIGTERM", 1: "File too large"}
    assert ended.status in ((130, 143) if how == "stopped" else (1,)), moment
    assert len(ended.errors) == 1, moment
    assert said[ended.status] in ended.errors[0], moment
    assert "Traceback" not in ended.err, moment
    assert how == "stopped" or "/out" in ended.errors[0], moment  # the place is named


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
