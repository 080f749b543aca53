"""`results.json` of an evaluation and `audit.json`, read back, also those of the first version."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from refocus.errors import InputError
from refocus.evaluation import old_results
from refocus.files import read_json
from refocus.records import from_json
from refocus.results import SCHEMA, Audit, Evaluation

T = TypeVar("T")
RESULTS = "results.json"


def read_evaluation(file: Path) -> Evaluation:
    """What `refocus evaluate` found.

    Raises:
        InputError: no such file, or another one; names the file and the place in it.
    """
    return _read(file, Evaluation)


def read_audit(file: Path) -> Audit:
    """What `refocus audit` found.

    Raises:
        InputError: no such file, or another one; names the file and the place in it.
    """
    return _read(file, Audit)


def _read(file: Path, kind: type[T]) -> T:
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold a JSON object")
    schema = content.get("schema")
    if schema is None:
        content = _upgraded(content, kind, file)
    elif schema != SCHEMA:
        raise InputError(
            f"{file}: has schema {schema}, this version of refocus reads {SCHEMA} and older"
        )
    return from_json(content, kind, file)


def _upgraded(content: dict[str, Any], kind: type, file: Path) -> dict[str, Any]:
    upgrade = old_results.audit if kind is Audit else old_results.evaluation
    try:
        return upgrade(content)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise InputError(f"{file}: not what refocus writes ({error!r})") from error
