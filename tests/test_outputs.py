"""Output folders: what killed processes leave, who writes, what a run started from, links."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from refocus import fingerprints, locks, outputs
from refocus.errors import InputError
from refocus.files import write_json
from refocus.vit import catalogue
from refocus.vit.from_names import write_zero_shot

DEAD = 2**22 + 1  # above the largest number of a process on Linux


@pytest.fixture(autouse=True)
def _nothing_stays_held() -> None:
    yield
    locks._release_all()


# --- leftovers ----------------------------------------------------------------------------------


def dead_lock(folder: Path) -> None:
    import platform

    folder.mkdir(parents=True, exist_ok=True)
    (folder / locks.LOCK).write_text(json.dumps({"process": DEAD, "host": platform.node()}))


def outputs_partial(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / ".refocus-partial-123-abc").write_bytes(b"half")


LEFTOVERS: dict[str, Callable[[Path], None]] = {
    "nothing": lambda p: p.mkdir(),
    "a temporary file": outputs_partial,
    "one of an earlier version": lambda p: (p.mkdir(), (p / ".settings.json.a8_x7kq1").touch()),
    "empty folders": lambda p: (p / "checkpoints" / "more").mkdir(parents=True),
    "a dead lock": dead_lock,
    "a recipe of a dead process": lambda p: (dead_lock(p), (p / "recipe.json").write_text("{}")),
    "a temporary file below": lambda p: outputs_partial(p / "records"),
}


@pytest.mark.parametrize("name", LEFTOVERS)
@pytest.mark.parametrize("resume", [True, False])
def test_what_a_killed_start_left_is_no_content(tmp_path: Path, name: str, resume: bool) -> None:
    out = tmp_path / "out"
    LEFTOVERS[name](out)
    assert outputs.resumable(out, resume, {"a": 1}) == out
    assert sorted(p.name for p in out.rglob("*")) == [locks.LOCK, "settings.json"]


CONTENT: dict[str, Callable[[Path], None]] = {
    "a file": lambda p: (p.mkdir(), (p / "thesis.txt").touch()),
    "a file below": lambda p: ((p / "a").mkdir(parents=True), (p / "a" / "b.txt").touch()),
    "a hidden file": lambda p: (p.mkdir(), (p / ".bashrc").touch()),
    "somebody's own recipe": lambda p: (p.mkdir(), (p / "recipe.json").write_text("{}")),
    "a link to a folder": lambda p: (p.mkdir(), (p / "link").symlink_to("/tmp")),
    "a file in its place": lambda p: p.touch(),
}


@pytest.mark.parametrize("name", CONTENT)
def test_what_somebody_keeps_is_never_touched(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    CONTENT[name](out)
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(InputError, match="already exists and is never overwritten"):
        outputs.new_folder(out)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_temporary_files_are_removed_where_a_folder_goes_on(tmp_path: Path) -> None:
    out = outputs.resumable(tmp_path / "out", True, {"a": 1})
    outputs_partial(out / "deep" / "er")
    outputs.resumable(out, True, {"a": 1})
    assert not list(out.rglob(".refocus-partial-*"))


# --- who writes ---------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from refocus import locks, outputs
from refocus.errors import InputError
try:
    {take}
except InputError as error:
    print(error); sys.exit(2)
print("held", flush=True)
time.sleep({seconds})
"""
TAKE = {
    "hold": "locks.hold(Path({out!r}))",
    "new folder": "outputs.new_folder({out!r})",
    "go on": "outputs.resumable({out!r}, True, {{'a': 1}})",
}


def process(out: Path, take: str, seconds: float = 60) -> subprocess.Popen[str]:
    code = HOLD.format(take=TAKE[take].format(out=str(out)), seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("take", TAKE)
def test_a_second_process_is_told_who_writes_and_a_dead_ones_lock_is_taken(
    tmp_path: Path, take: str
) -> None:
    out = outputs.resumable(tmp_path / "out", True, {"a": 1})
    locks.release(out)
    if take == "new folder":
        out = tmp_path / "new"
    with process(out, take) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with process(out, take) as second:
            said, _ = second.communicate()
        first.kill()
    assert second.returncode == 2
    assert f"process {first.pid} on " in said
    with process(out, take, seconds=0) as third:
        assert third.communicate()[0] == "held\n"


def test_a_lock_that_a_child_of_a_dead_process_keeps_is_taken_over(tmp_path: Path) -> None:
    """Workers that decode images inherit it, and live on for some seconds after a kill -9."""
    code = (
        "import os, sys, time; from pathlib import Path; from refocus import locks\n"
        f"locks.hold(Path({str(tmp_path)!r}))\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True); os.kill(os.getpid(), 9)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as dead:
        assert dead.stdout is not None
        child = int(dead.stdout.readline())
        dead.wait()
        try:
            locks.hold(tmp_path)
        finally:
            os.kill(child, 9)


def test_one_process_may_take_its_lock_again_and_gives_it_back_at_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        locks.hold(tmp_path)
    assert (tmp_path / locks.LOCK).exists()
    with locks.released(tmp_path):
        pass
    assert not (tmp_path / locks.LOCK).exists()
    locks.hold(tmp_path)
    outputs.finish(tmp_path, "test")
    assert sorted(p.name for p in tmp_path.iterdir()) == [outputs.MANIFEST]


# --- out inside the input -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["images", "images/out", "images/a/b/out", "x/../images/out"])
def test_results_may_not_lie_where_images_are_read(tmp_path: Path, place: str) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for make in (
        lambda apart: outputs.new_folder(tmp_path / place, apart=apart),
        lambda apart: outputs.resumable(tmp_path / place, True, {}, apart=apart),
    ):
        with pytest.raises(InputError, match=r"lies inside images .*taken for input"):
            make({"‹images›": tmp_path / "images", "‹masks›": None})
    assert sorted(tmp_path.rglob("*")) == before


# --- what a run starts from ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"seed": 0}, {"seed": 1}, "seed: 0 then, 1 now"),
        ({"model": ["m", "abc"]}, {"model": ["m", "abd"]}, 'model: "abc" then, "abd" now'),
        ({"files": {"/x": "1"}}, {"files": {"/x": "2"}}, "files /x: one content then, another now"),
        ({"masks": None}, {"masks": "m"}, 'masks: null then, "m" now'),
        ({"precision": "bf16"}, {}, 'precision: "bf16" then, not set now'),
        ({}, {"masks": None}, "masks: not set then, null now"),
    ],
)
def test_a_folder_goes_on_only_with_its_own_settings(
    tmp_path: Path, before: dict, now: dict, message: str
) -> None:
    locks.release(outputs.resumable(tmp_path / "out", True, before))
    with pytest.raises(InputError) as refusal:
        outputs.resumable(tmp_path / "out", True, now)
    assert message in str(refusal.value)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an image": (lambda p: (p / "0.png").write_bytes(b"other"), "0.png has changed since"),
    "a mask gone": (lambda p: (p / "1.png").unlink(), "1.png has been removed since"),
    "the weights": (lambda p: None, "its model's weights have changed since"),
    "the reading": (lambda p: None, "its model's preprocessing or class names have changed since"),
    "the teacher": (lambda p: None, "its teacher's weights, preprocessing or class names have"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_resumes_only_from_what_it_was_started_from(tmp_path: Path, name: str) -> None:
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for file in files:
        file.write_bytes(b"one")
    origins = {"weights": "w", "reading": "r", "teacher": "t"}
    write_json(tmp_path / fingerprints.IDENTITY, fingerprints.identity(origins, files))
    os.utime(files[0], ns=(1, 1))
    outputs.reopen(tmp_path, origins, "‹run› r")
    change, message = CHANGES[name]
    change(tmp_path)
    other = {part: "other" if name == f"the {part}" else known for part, known in origins.items()}
    with pytest.raises(InputError, match=message):
        outputs.reopen(tmp_path, other, "‹run› r")


# --- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["records.jsonl", "records", "model/config.json", locks.LOCK])
def test_a_link_in_an_output_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    out, target = outputs.resumable(tmp_path / "out", True, {"a": 1}), tmp_path / "elsewhere"
    locks.release(out)
    target.write_text("not ours")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(target)
    with pytest.raises(InputError, match="is a link, and links inside an output folder"):
        outputs.resumable(out, True, {"a": 1})
    assert target.read_text() == "not ours"


@pytest.mark.parametrize("which", ["parent", "first", "dead"])
def test_without_flock_a_lock_whose_process_has_ended_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A number that another process has by now cannot be told from the holder's."""
    holder = {"parent": os.getppid(), "first": 1, "dead": DEAD}[which]
    monkeypatch.setattr(locks, "_flocked", lambda _descriptor: False)
    file = tmp_path / locks.LOCK
    file.write_text(json.dumps({"process": holder, "host": platform.node()}))
    if holder != DEAD:
        with pytest.raises(InputError, match=rf"process {holder} on .*or remove {file}"):
            locks.hold(tmp_path)
        file.unlink()
    locks.hold(tmp_path)
    assert json.loads(file.read_text())["process"] == os.getpid()
    locks.release(tmp_path)
    assert not file.exists()


@pytest.mark.parametrize("place", ["text", "text/below/that", "fifo", "itself", "nowhere"])
def test_what_is_no_folder_can_hold_none(place: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "nowhere").symlink_to("not-there")
    with pytest.raises(
        InputError, match=r"^work .*/\w+ is not a folder; name a new or existing folder"
    ):
        outputs.refuse_no_folder(tmp_path / place, called="work")
    outputs.refuse_no_folder(tmp_path / "new" / "one", called="work")
    outputs.refuse_no_folder("", called="work")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("what", ["a folder", "a page", "a model of names"])
def test_a_disk_that_takes_nothing_is_no_wrong_name(
    what: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line ends with 1 then, and 2 where the name cannot be used."""

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    writers: dict[str, Callable[[], object]] = {
        "a folder": lambda: outputs.new_folder(tmp_path / "a" / "b"),
        "a page": lambda: catalogue.write(tmp_path / "models.md"),
        "a model of names": lambda: write_zero_shot("m", ["a", "b"], tmp_path / "a" / "b"),
    }
    monkeypatch.setattr(Path, "mkdir", full)
    monkeypatch.setattr(catalogue, "write_text", full)
    with pytest.raises(OSError, match=os.strerror(number)) as refusal:
        writers[what]()
    assert refusal.value.errno == number


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"seed": 0}, {"seed": 0}, ""),
        ({"most": 9, "seed": 0}, {"most": 9, "seed": 1}, "seed: 0 then, 1 now"),
        ({"a": 1}, {"a": 1, "scale": "paper"}, 'protocol: not set then, "paper" now'),
        (
            {"files": ["1"], "seed": 0},
            {"files": ["1", "2"], "seed": 0, "backgrounds": "/b"},
            'backgrounds: not set then, "/b" now',
        ),
        ({"files": ["1"]}, {"files": ["2"]}, "files: one content then, another now"),
        ({"files": {"/i": "1"}}, {"files": {"/i": "2"}}, "files /i: one content then, another now"),
        (
            {"leave_out": []},
            {"leave_out": [f"/images/class/{number}.png" for number in range(12)]},
            "images that are left out, as they were trained on: [] then, 12 of them now",
        ),
    ],
)
def test_what_differs_is_said_by_the_option_that_the_user_gave(
    before: dict[str, object], now: dict[str, object], said: str
) -> None:
    assert outputs.difference(before, now) == said
