"""The package as a whole: what importing costs, and that the folders spell the pipeline."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import refocus
from tests.makers import DOCS

SOURCE = Path(refocus.__file__).parent
# a package imports from itself and from those before it; "" holds the modules of the root
ORDER = [
    "",
    "figures",
    "vit",
    "relevance",
    "data",
    "masks",
    "objectives",
    "tuning",
    "evaluation",
    "probes",
    "reports",
    "flow",
    "studies",
    "demo",
    "app",
    "cli",
]
STRANGERS = [("evaluation", "tuning"), ("demo", "studies"), ("app", "studies"), ("app", "demo")]
NEEDS_AN_EXTRA = (
    "refocus.app.audit",
    "refocus.app.compare",
    "refocus.app.door",
    "refocus.app.mask",
    "refocus.app.page",
    "refocus.app.parts",
    "refocus.app.server",
    "refocus.app.tune",
    "refocus.app.what_if",
    "refocus.app.whole",
)


def _module(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(file): file for file in sorted(SOURCE.rglob("*.py"))}


def _package(module: str) -> str:
    """refocus.data.images -> data; refocus.errors -> "" (the root)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (SOURCE / parts[-1]).is_dir() else ""


def _imported(module: str) -> set[str]:
    """The refocus modules that a module imports, anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            name = node.module or ""
            if name.split(".")[0] == "refocus":
                found |= {
                    f"{name}.{a.name}" if f"{name}.{a.name}" in MODULES else name
                    for a in node.names
                }
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "refocus"}
    return found


@pytest.mark.parametrize("module", ["refocus", "refocus.cli.main"])
def test_importing_loads_no_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_module_has_a_home() -> None:
    homes = {p.name for p in SOURCE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert homes == set(ORDER) - {""}
    root = {p.stem for p in SOURCE.glob("*.py")}
    named = {
        "errors",
        "files",
        "fingerprints",
        "intervals",
        "locks",
        "outputs",
        "plugins",
        "processes",
        "progress",
        "records",
        "references",
        "results",
        "runs",
        "settings",
        "signals",
    }
    assert root <= {"__init__", "__main__"} | named


@pytest.mark.parametrize("module", list(MODULES))
def test_packages_import_downward_only(module: str) -> None:
    if module in ("refocus", "refocus.__main__"):  # the doors, not a room
        return
    mine = _package(module)
    theirs = {_package(name) for name in _imported(module) if name != "refocus"}
    assert theirs <= set(ORDER[: ORDER.index(mine) + 1])
    assert not {(mine, name) for name in theirs} & set(STRANGERS)


def test_no_module_takes_part_in_a_circle() -> None:
    graph = {module: _imported(module) - {"refocus"} for module in MODULES if module != "refocus"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError and names the circle


def test_package_inits_hold_a_docstring_alone() -> None:
    for module, file in MODULES.items():
        if file.name == "__init__.py" and module != "refocus":
            (only,) = ast.parse(file.read_text(encoding="utf-8")).body
            assert isinstance(only, ast.Expr), module


def test_public_names_stay_functions_whatever_was_imported_before() -> None:
    for module in MODULES:
        if module not in NEEDS_AN_EXTRA and not module.endswith("__main__"):
            importlib.import_module(module)
    for name in refocus.__all__:
        assert not isinstance(getattr(refocus, name), ModuleType), name


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="explain"):
        _ = refocus.explian


@pytest.mark.parametrize("module", ["refocus", "refocus.cli"])
def test_the_package_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, refocus.__version__)


def _reached(*modules: str) -> set[str]:
    """The packages that these modules need, by what they import and what that imports."""
    found, todo = set(modules), list(modules)
    while todo:
        new = {name for name in _imported(todo.pop()) if name != "refocus"} - found
        found |= new
        todo += new
    return {_package(name) for name in found} - {""}


@pytest.mark.parametrize(
    ("walk", "starts", "most"),
    [
        ("An image and its mask pass through 7 packages in `tune`", ["refocus.tuning.tune"], 7),
        (
            "A prediction passes through 8 packages from `evaluate`",
            ["refocus.evaluation.classify", "refocus.reports.before_after"],
            8,
        ),
    ],
)
def test_the_walks_enter_the_rooms_that_the_document_names(
    walk: str, starts: list[str], most: int
) -> None:
    text = (DOCS / "design.md").read_text(encoding="utf-8").split(walk, 1)[1].split("\n\n")[1]
    rooms = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert len(rooms) == len(set(rooms)) <= most
    assert set(rooms) - {"cli"} == _reached(*starts)


LONGEST = 45  # lines of a function's body, its docstring not counted


def _bodies() -> dict[str, int]:
    """Function -> lines of its body."""
    found = {}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                found[f"{module}.{node.name}:{node.lineno}"] = lines
    return found


def test_functions_are_short() -> None:
    long = {name: lines for name, lines in _bodies().items() if lines > LONGEST}
    assert not long, f"split these: {long}"


_WRITERS = {"open": 0, "read_text": 0, "write_text": 1}  # method -> arguments before encoding


def _without_encoding(node: ast.AST) -> bool:
    """A call that reads or writes text in the encoding of the machine, which differs by country."""
    if not isinstance(node, ast.Call):
        return False
    given = {keyword.arg for keyword in node.keywords}
    if isinstance(node.func, ast.Name):  # open(FILE), or `refocus.files`' own, always UTF-8
        return node.func.id == "open" and "encoding" not in given and not _binary(node, 1)
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in _WRITERS:
        return False
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if owner in ("Image", "os", "plan") or ast.unparse(node.func) == "self.plan.open":
        return False  # not of files of text
    if node.func.attr == "open":
        return "encoding" not in given and not _binary(node, 0)
    return "encoding" not in given and len(node.args) <= _WRITERS[node.func.attr]


def _binary(call: ast.Call, place: int) -> bool:
    modes = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("open(file)", True),
        ("open(file, 'w')", True),
        ("open(file, 'rb')", False),
        ("open(file, encoding='utf-8')", False),
        ("path.open('a')", True),
        ("path.open('r+b')", False),
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
    ],
)
def test_a_text_without_encoding_is_noticed(text: str, found: bool) -> None:
    assert any(map(_without_encoding, ast.walk(ast.parse(text)))) == found


@pytest.mark.parametrize("module", list(MODULES))
def test_texts_are_read_and_written_in_a_stated_encoding(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert [ast.unparse(node) for node in ast.walk(tree) if _without_encoding(node)] == []
