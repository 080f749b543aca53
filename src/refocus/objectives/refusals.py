"""What an objective does not take: a setting that changes nothing would be a wrong belief."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from refocus.errors import InputError
from refocus.objectives.chosen_map import NamedMap
from refocus.objectives.registry import OBJECTIVES, Objective
from refocus.objectives.regularizers import REGULARIZERS
from refocus.objectives.steps import MakeMap, StepSettings
from refocus.vit.inputs import shown

_OF_MAP = ("background", "foreground", "energy", "bce")  # terms of the relevance map


def refuse_weights(name: str, row: Objective, weights: Mapping[str, float]) -> None:
    """Stop at a weight of a term that the objective has not, or that is no finite number.

    Raises:
        InputError: names the term and those that there are.
    """
    for term, weight in weights.items():
        if term not in row.weights and term not in REGULARIZERS:
            raise InputError(
                f"‹weights› {term}: objective {name!r} has no such term; its terms are "
                f"{', '.join(row.weights)}, and any objective takes {', '.join(REGULARIZERS)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InputError(f"‹weights› {term}: {shown(weight)}; must be a number")
        if not math.isfinite(weight):
            raise InputError(f"‹weights› {term}={weight}: must be a finite number")


def refuse_unread(
    name: str, row: Objective, settings: StepSettings, weights: Mapping[str, float]
) -> None:
    """Stop at a setting that the objective does not read.

    Raises:
        InputError: names the setting and the objective.
    """
    by_map = {
        "target": settings.target is not None,
        "map": settings.map is not None,
        "recompute": settings.recompute,
    }
    for setting, given in by_map.items():
        if given and not row.by_map:
            raise InputError(
                f"{setting}: objective {name!r} does not use it; those with a map of GAE do"
            )
    _refuse_labels(name, row, settings, weights)
    if settings.target is not None and of_no_class(settings.map):
        raise InputError("target: this ‹map› depends on no class and does not use it")
    if settings.map is not None and (settings.recompute or row.exact):
        what = "recompute" if settings.recompute else f"objective {name!r}"
        raise InputError(f"{what}: applies only to GAE's map")
    if settings.recompute and (settings.second_order or row.exact):
        raise InputError(
            "recompute: keeps no graph of the attention gradient, which the exact derivative of "
            f"{name!r} needs"
        )
    if settings.second_order and "second_order" not in row.switches:
        raise InputError(f"‹second_order›: objective {name!r} does not use it")
    _refuse_weightless(row, settings, {**row.weights, **weights})
    read = "temperature" in row.switches or weights.get("confidence")
    if settings.temperature != 1.0 and not read:
        raise InputError(f"‹temperature›: objective {name!r} does not use it")


def of_no_class(made: MakeMap | None) -> bool:
    """Whether a map is one of the table that is of no class, such as rollout."""
    return isinstance(made, NamedMap) and not made.row.by_class


def refuse_unread_classes(
    name: str, row: Objective, settings: StepSettings, weights: Mapping[str, float]
) -> None:
    """Stop at `seen` where no term reads it; `tune` hands it to every objective.

    Raises:
        InputError: names the objective, or says that the terms have weight 0.
    """
    if settings.seen is None:
        return
    if "seen" not in row.switches:
        able = [key for key, each in OBJECTIVES.items() if "seen" in each.switches]
        raise InputError(
            f"seen: objective {name!r} does not use it; must be left out, or the objective one of "
            f"{', '.join(able)}"
        )
    merged = {**row.weights, **weights}
    if row.by_label and not any(merged.get(term) for term in row.by_label):
        raise InputError("seen: the terms that read it have weight 0")


def _refuse_weightless(row: Objective, settings: StepSettings, merged: Mapping[str, float]) -> None:
    """Where the terms that read a setting have weight 0, it changes nothing."""
    by_map = {
        "‹second_order›": settings.second_order,
        "map": settings.map is not None,
        "recompute": settings.recompute,
        "target": settings.target is not None,
    }
    terms = [term for term in _OF_MAP if term in row.weights]
    if row.by_map and terms and not (merged.get("relevance", 1) and any(map(merged.get, terms))):
        for setting, given in by_map.items():
            if given:
                raise InputError(f"{setting}: no term with a weight above 0 reads the map")
    warm = settings.temperature != 1.0 and "temperature" in row.switches
    if warm and not (merged.get("classification") or merged.get("confidence")):
        raise InputError("‹temperature›: the terms that read it have weight 0")


def refuse_lesson(extra: Sequence[str], settings: StepSettings) -> None:
    """Stop at a teacher without a term that learns from it, and at the reverse.

    Raises:
        InputError: names what is missing.
    """
    reading = [term for term in extra if REGULARIZERS[term].needs_lesson]
    if reading and settings.lesson is None:
        raise InputError(f"‹weights› {reading[0]}: needs ‹teacher›")
    if settings.lesson is not None and not reading:
        raise InputError("‹teacher›: no term uses it; give the term shape a weight (‹weights›)")


def _refuse_labels(
    name: str, row: Objective, settings: StepSettings, weights: Mapping[str, float]
) -> None:
    """Where the predicted class is asked for, no term may read labels."""
    if not settings.predicted:
        return
    shown = "‹target=predicted›"
    if row.without_labels is None:
        able = [key for key, each in OBJECTIVES.items() if each.without_labels is not None]
        raise InputError(
            f"{shown}: objective {name!r} does not use it; choose one of {', '.join(able)}"
        )
    if of_no_class(settings.map):
        raise InputError(f"{shown}: this ‹map› depends on no class and does not use it")
    merged = {**row.weights, **weights}
    for term in (*row.without_labels, "labels"):
        if merged.get(term):
            raise InputError(
                f"{shown}: the term {term!r} of objective {name!r} reads labels; set its weight to "
                "0 (‹weights›), and that of confidence to 0.2 for the paper's in its place"
            )


def positive(name: str, value: object) -> float:
    """A number above 0, as a float.

    Raises:
        InputError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name}: {shown(value)}; must be a positive number")
    return float(value)


def indices(name: str, values: object) -> tuple[int, ...]:
    """Class indices, at least one, of a tensor, a sequence or a set.

    Raises:
        InputError: they are something else.
    """
    listed = values.tolist() if isinstance(values, Tensor) else values
    if isinstance(listed, Sequence | set) and not isinstance(listed, str):
        found = tuple(listed)
        if found and all(type(value) is int and value >= 0 for value in found):
            return found
    raise InputError(f"{name}: {shown(values)}; must be class indices, at least one")
