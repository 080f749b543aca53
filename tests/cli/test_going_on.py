"""One rule for going on: the same command again continues, another is refused and says how."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.makers import run

GIVEN = "--model {model} --images {images} --masks {masks}"
COMMANDS = {  # command -> its arguments, and those that make it another
    "audit": (f"{GIVEN} --most 8", "--seed 1", "seed: 0 then, 1 now"),
    "evaluate": ("--model {model} --on own={images}", "--seed 1", "seed: 0 then, 1 now"),
    "explain": ("{images}/ant --model {model}", "--class ant", 'target: null then, "ant" now'),
    "masks": ("{images} --from png {masks}", "--mask-polarity keep", 'mask_polarity: "ask" then'),
    "probe": (
        "--model {model} --images {images} --kind cutout --most 8",
        "--seed 1",
        "seed: 0 then, 1 now",
    ),
    "run": (f"{GIVEN} --shots 1 --epochs 1 --most 8", "--tolerance 2", "tolerance: 1.0 then, 2.0"),
    "shifts": ("{images} --masks {masks} --kind only-fg", "--seed 1", "seed: 0 then, 1 now"),
    "tune": (f"{GIVEN} --shots 1 --epochs 1", "--seed 1", "seed: 0 then, 1 now"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_goes_on_and_another_is_refused(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, other, difference = COMMANDS[name]
    given = text.format(model=model_folder, images=image_folders[0], masks=image_folders[1])
    out = tmp_path / "out"
    command = (name, *given.split(), "--out", out)
    assert run(monkeypatch, *command) == 0
    said = capsys.readouterr().out
    assert run(monkeypatch, *command) == 0
    assert capsys.readouterr().out == said
    assert run(monkeypatch, *command, *other.split()) == 2
    refused = capsys.readouterr().err
    assert difference in refused
    assert "run the same command to resume, or name a new folder" in refused


@pytest.mark.parametrize(
    ("name", "alias"), [("audit", "--resume"), ("evaluate", "--resume"), ("masks", "--resume")]
)
def test_resume_is_accepted_where_it_was(
    name: str,
    alias: str,
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = COMMANDS[name][0]
    given = text.format(model=model_folder, images=image_folders[0], masks=image_folders[1])
    command = (name, *given.split(), "--out", tmp_path / "out")
    assert run(monkeypatch, *command, alias) == 0
    assert run(monkeypatch, *command, alias) == 0
    capsys.readouterr()
    assert run(monkeypatch, name, "--help") == 0
    assert alias not in capsys.readouterr().out  # the same command is enough


def test_a_folder_of_another_command_is_left_alone_and_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    out = tmp_path / "out"
    assert run(monkeypatch, "masks", images, "--from", "png", masks, "--out", out) == 0
    given = ("--model", model_folder, "--images", images, "--masks", masks, "--out", out)
    before = sorted(path.name for path in out.rglob("*"))
    assert run(monkeypatch, "tune", *given) == 2
    said = capsys.readouterr().err
    assert "already exists and is never overwritten; name a new folder, or resume it" in said
    assert "with the `refocus masks` that made it" in said
    assert sorted(path.name for path in out.rglob("*")) == before
