"""The public names: typed, lazy, documented, and one table says what they are."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import refocus

SOURCE = Path(refocus.__file__).parent
FUNCTIONS = [name for name in refocus.__all__ if inspect.isfunction(getattr(refocus, name))]
CLASSES = [name for name in refocus.__all__ if inspect.isclass(getattr(refocus, name))]


def _typed_names() -> dict[str, str]:
    """Name -> module in the TYPE_CHECKING block of the package."""
    found = {}
    for node in ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                found |= {a.name: (line.module or "").removeprefix("refocus.") for a in line.names}
    return found


def test_type_checkers_see_what_python_loads() -> None:
    assert _typed_names() == refocus._PUBLIC
    assert sorted(refocus.__all__) == sorted([*refocus._PUBLIC, "__version__"])
    assert dir(refocus) == sorted(refocus.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


_STRICT = ("--strict", "--ignore-missing-imports", "--follow-imports=silent")
SNIPPET = """
from pathlib import Path
import refocus
import torch
from transformers import Trainer
model = refocus.load("vit_tiny_patch16_224", pretrained=False)
refocus.save(model, "model")
image = refocus.read_image("dog.png")
mask = refocus.read_mask(Path("dog.png"), image)
reveal_type(model)
reveal_type(image)
reveal_type(mask)
reveal_type(refocus.eval_image(model)(image))
found = refocus.explain(model, torch.zeros(1, 3, 224, 224), 3)
reveal_type(found.patches)
with refocus.attention_maps(model) as maps:
    reveal_type(maps)
with refocus.recorded(model) as own_maps:
    reveal_type(own_maps)
terms = refocus.objective("refocus")(model, mask, mask, mask)
reveal_type(terms["loss"])
here = Path("here")
recipe = refocus.Recipe(here, here, here, val=here, val_masks=here, backgrounds=here, adain=here)
recipe = refocus.Recipe(model="m", images="i", masks="k", teacher=here)
reveal_type(recipe.epochs)
class Refocused(refocus.TrainerMixin, Trainer):
    step = staticmethod(refocus.objective("refocus"))
"""


@pytest.mark.slow
def test_mypy_sees_a_type_behind_every_name_and_no_name_besides(tmp_path: Path) -> None:
    """Each name by itself, and what some calls return: nowhere Any."""
    names = [f"reveal_type(refocus.{name})" for name in refocus.__all__]
    file = tmp_path / "snippet.py"
    file.write_text("\n".join([SNIPPET, *names, "refocus.explian"]))
    said = subprocess.run(
        [sys.executable, "-m", "mypy", *_STRICT, str(file)],
        env={**os.environ, "MYPYPATH": str(SOURCE.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    notes = [line for line in said if "Revealed type" in line]
    assert len(notes) == len(names) + SNIPPET.count("reveal_type(")
    assert not [line for line in notes if line.endswith(('"Any"', '"builtins.object"'))]
    (error,) = (line for line in said if "error:" in line)
    assert 'Module has no attribute "explian"' in error


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_every_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = getattr(refocus, name)
    tests = [t for t in doctest.DocTestFinder(recurse=False).find(value, name) if t.examples]
    assert tests, f"refocus.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for test in tests:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_it_takes_returns_and_raises(name: str) -> None:
    function = getattr(refocus, name)
    text = inspect.getdoc(function) or ""
    first, *rest = text.splitlines()
    assert first.endswith(".")
    assert not rest or not rest[0]
    for argument in inspect.signature(function).parameters:
        assert f"{argument}: " in text, argument
    assert "Raises:" in text
    assert (
        ("Returns:" in text) or ("Yields:" in text) or function.__annotations__["return"] == "None"
    )


def test_another_module_loads_the_very_same_function() -> None:
    for name, module in refocus._PUBLIC.items():
        assert getattr(refocus, name) is getattr(importlib.import_module(f"refocus.{module}"), name)
