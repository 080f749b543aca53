"""Texts of the library name parameters, and no option of the command line."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

import refocus
from refocus.errors import InputError, Message, first_line

SOURCE = Path(refocus.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Gradio's style sheet; and where a person reads more, which is no parameter
NOT_OURS = {"--border-color-primary", "--block-background-fill", "--help", "--c"}
# a whole command line for a shell names options by right
COMMAND = re.compile(r"`(?:refocus|pip) [^`]*`|(?s:<code>refocus .*?</code>)")


def _texts(file: Path) -> list[tuple[int, str]]:
    """Line and text of every string in a module, docstrings and the parts of f-strings too."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize(
    "file",
    [f for f in sorted(SOURCE.rglob("*.py")) if f.relative_to(SOURCE).parts[0] != "cli"],
    ids=lambda file: str(file.relative_to(SOURCE)),
)
def test_no_text_outside_the_command_line_names_an_option(file: Path) -> None:
    found = {
        f"{file.name}:{line}: {word}"
        for line, text in _texts(file)
        for word in OPTION.findall(COMMAND.sub("", text))
        if word not in NOT_OURS
    }
    assert not found, f"name the parameter instead, as in ‹mask_score›: {sorted(found)}"


@pytest.mark.parametrize("file", sorted((SOURCE / "assets").glob("*.[jt]*")), ids=lambda f: f.name)
def test_no_page_names_an_option(file: Path) -> None:
    shown = re.sub(r"(?s)<style>.*?</style>| style=\"[^\"]*\"", "", file.read_text("utf-8"))
    assert not OPTION.findall(COMMAND.sub("", shown))


def test_a_message_reads_as_python_names_its_parameters() -> None:
    error = InputError("‹share› 0.5: only with ‹do_no_harm=False›, not with ‹lr=auto›")
    assert str(error) == "share 0.5: only with do_no_harm=False, not with lr=auto"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert pickle.loads(pickle.dumps(error)).marked == error.marked


def test_an_error_can_be_about_another_parameter() -> None:
    error = InputError("‹model› x: unknown; ‹model=y› is known, ‹models› are many")
    assert error.renamed("model", "against").marked == (
        "‹against› x: unknown; ‹against=y› is known, ‹models› are many"
    )


def test_what_a_user_typed_is_no_mark() -> None:
    assert str(Message("‹images› /data/‹a b›/x: empty")) == "images /data/‹a b›/x: empty"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\ntwo", "one"),
        ("Error(s) in loading state_dict for Vit:\n\tsize mismatch for a: 3, 5.\n\tmore",
         "Error(s) in loading state_dict for Vit: size mismatch for a: 3, 5."),
        ("\n a:\n b:\n c\n d", "a: b: c"),
        ("nothing follows:", "nothing follows:"),
        ("\x1b[96mstep 1/3\x1b[0m of it", "step 1/3 of it"),
        ("", "ValueError"),
        ("x" * 300, "x" * 200),
    ],
)  # fmt: skip
def test_another_librarys_message_is_cut_where_it_says_something(said: str, shown: str) -> None:
    assert first_line(ValueError(said)) == shown
