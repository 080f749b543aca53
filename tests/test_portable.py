"""What Linux would forgive and Windows and macOS do not."""

from __future__ import annotations

import ast
import os
from pathlib import Path, PureWindowsPath

import psutil
import pytest

import refocus
from refocus import InputError, locks, references
from refocus.cli.options import settings_from
from refocus.evaluation.settings import EvaluationSettings
from refocus.masks.trust import scores
from refocus.vit.loading import load
from tests.makers import ROOT

SOURCE = Path(refocus.__file__).parent


def _text_without_encoding(call: ast.Call) -> bool:
    """Whether a call opens a text file in whatever encoding the system has."""
    named = {keyword.arg for keyword in call.keywords}
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text"):
        module = isinstance(call.func.value, ast.Name) and call.func.value.id == "outputs"
        return "encoding" not in named and not module
    method = isinstance(call.func, ast.Attribute) and call.func.attr == "open"
    if not (method or (isinstance(call.func, ast.Name) and call.func.id == "open")):
        return False
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(owner, ast.Name) and owner.id in ("os", "Image", "tarfile", "h5py"):
        return False
    first = call.args[0 if method else 1 :][:1]
    mode = first[0].value if first and isinstance(first[0], ast.Constant) else "r"
    if first and not isinstance(first[0], ast.Constant):  # `plan.open(name, model)`
        return False
    return "b" not in str(mode) and "encoding" not in named


@pytest.mark.parametrize("folder", ["src", "scripts", "examples", "benchmarks"])
def test_every_text_file_is_opened_with_an_encoding(folder: str) -> None:
    faults = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _text_without_encoding(node)
    ]
    assert faults == []


def test_a_path_with_a_drive_letter_is_a_path() -> None:
    given = settings_from(EvaluationSettings, {"suites": ["test=C:\\data\\test=1", "b=D:/x"]})
    assert given["suites"] == {"test": Path("C:\\data\\test=1"), "b": Path("D:/x")}
    for name in ("C:\\data", "a/b", "a:b", "..", "a|b"):
        with pytest.raises(InputError, match="must be NAME=PATH, with a name that can be"):
            settings_from(EvaluationSettings, {"suites": [f"{name}=x"]})
    ref = "C:\\models\\vit.pth?arch=vit_tiny?names=C:\\names.txt"
    assert references.split(ref) == (
        "C:\\models\\vit.pth",
        {"arch": "vit_tiny", "names": "C:\\names.txt"},
    )
    assert references.resolved("C:\\models\\vit") == "C:\\models\\vit"
    with pytest.raises(InputError, match="no such folder"):
        load("C:\\models\\vit")


def test_scores_are_known_by_names_with_slashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "masks.json").write_text(
        '{"masks": [{"mask": "cat/a.png", "digest": "", "score": 0.25}]}', encoding="utf-8"
    )
    found = scores(tmp_path)
    assert found == {"cat/a": 0.25}
    assert PureWindowsPath("cat/a.png").with_suffix("").as_posix() == "cat/a"


def test_a_lock_needs_nothing_that_windows_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    close, unlink = os.close, Path.unlink
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.delattr(os, "pwrite", raising=False)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("on Windows this sends Ctrl-C"))
    locks.hold(tmp_path)
    monkeypatch.setattr(os, "close", lambda d: (order.append("close"), close(d))[1])

    def remove(self: Path, missing_ok: bool = False) -> None:
        order.append("unlink")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", remove)
    locks.release(tmp_path)
    assert order == ["close", "unlink"]  # Windows removes no file that is open
    assert not (tmp_path / locks.LOCK).exists()
    monkeypatch.undo()

    monkeypatch.setattr(locks, "fcntl", None)
    gone = next(number for number in range(2**15, 2**16) if not psutil.pid_exists(number))
    holder = f'{{"process": {gone}, "host": "{locks.platform.node()}"}}'
    (tmp_path / locks.LOCK).write_text(holder, encoding="utf-8")
    locks.hold(tmp_path)  # taken over from a dead process
    locks.release(tmp_path)
    holder = holder.replace(str(gone), str(os.getppid()))
    (tmp_path / locks.LOCK).write_text(holder, encoding="utf-8")
    with pytest.raises(InputError, match="is writing here"):
        locks.hold(tmp_path)


def test_the_workflow_runs_on_all_three_systems() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    for system in ("ubuntu-latest", "macos-latest", "windows-latest"):
        assert system in text
