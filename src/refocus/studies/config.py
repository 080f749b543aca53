"""The settings of a study as a TOML file, so that a table can be made again. Imports no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from refocus import references
from refocus.errors import InputError, first_line
from refocus.files import read_text
from refocus.studies.settings import StudySettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PATHS = ("data", "on", "names", "masks", "automatic_masks")
SPELT = {"rates": "lr", "shifts": "shift"}  # fields whose option has another name


def read_config(file: Path) -> dict[str, Any]:
    """Fields of `StudySettings` from a TOML file; relative paths are meant from the file.

    Keys are the names of options; those of fields are taken as well.

    Raises:
        InputError: unreadable, empty, a key that is no option, or an option under both names.
    """
    try:
        content = tomllib.loads(read_text(file.expanduser()))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"‹config› {file}: not a readable TOML file ({first_line(error)})"
        ) from error
    if not content:
        raise InputError(
            f"‹config› {file}: holds no setting; `refocus study ... --dry-run --config NEW` writes "
            "those that you give beside it"
        )
    for name, option in SPELT.items():
        if name in content and option in content:
            raise InputError(f"‹config› {file}: {option} and {name} are the same; give one of them")
    named = {option: name for name, option in SPELT.items()}
    content = {named.get(key, key): value for key, value in content.items()}
    known = [field.name for field in fields(StudySettings)]
    legal = [SPELT.get(name, name) for name in known]
    if unknown := [key for key in content if key not in known]:
        raise InputError(
            f"‹config› {file}: unknown key {unknown[0]!r}; choose one of {', '.join(legal)}"
        )
    place = file.expanduser().resolve().parent
    for key in _PATHS:
        if isinstance(content.get(key), str):
            content[key] = str(place / Path(content[key]).expanduser())
    if isinstance(models := content.get("model"), list):
        content["model"] = [_model(ref, place) for ref in models]
    return content


def _model(ref: Any, place: Path) -> Any:
    """A folder from the file's own, any other reference as it is."""
    folder = place / Path(ref).expanduser() if isinstance(ref, str) else place
    return str(folder) if isinstance(ref, str) and folder.is_dir() else ref


def as_config(settings: StudySettings) -> str:
    """The TOML file that `read_config` reads; what has no value is left out."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values |= {key: str(Path(values[key]).expanduser().resolve()) for key in _PATHS if values[key]}
    values["model"] = [references.resolved(ref) for ref in values["model"]]
    given = {key: value for key, value in values.items() if value not in (None, (), [], {})}
    return "".join(f"{SPELT.get(key, key)} = {_toml(value)}\n" for key, value in given.items())


def _toml(value: Any) -> str:
    """Numbers, switches, texts, lists and tables as TOML writes them."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # a text in JSON is one in TOML, but for the one control character that JSON leaves as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
