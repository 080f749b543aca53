"""Which of the probes are asked for, and which can be run with what is given."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from torch import nn

from refocus.errors import InputError, Message
from refocus.probes.batch import Options
from refocus.probes.registry import PROBES, Probe

log = logging.getLogger("refocus")
FOLDERS = (
    "masks",
    "styles",
    "cues",
    "imagenet_c",
    "outside",
    "transfer",
    "results",
)  # what a probe may need, as in Options


def missing(probe: Probe, options: Options) -> str:
    """What a probe lacks here; empty if nothing."""
    for need in probe.needs:
        if need in FOLDERS and getattr(options, need) is None:
            return f"needs ‹{need}›"
    return ""


def supported(kinds: Sequence[str], given: Sequence[str], models: Iterable[nn.Module]) -> list[str]:
    """Of the probes that `all` stands for, those that these models can take.

    One that was named must be among them.

    Raises:
        InputError: a probe that was named cannot be run on one of the models.
    """
    named = {name for part in given for name in part.split(",")}
    kept, every = [], list(models)
    for name in kinds:
        try:
            for model in every:
                if found := PROBES[name].check:
                    found(model)
        except InputError as error:
            if name in named:
                raise
            log.info("%s is left out: %s", name, error)
            continue
        kept.append(name)
    return kept


def names(given: Sequence[str], options: Options) -> list[str]:
    """The probes asked for, in the order of the table.

    `all`: those that can be run with what was given.

    Raises:
        InputError: an unknown name, or one that lacks something.
    """
    wanted = {name for part in given for name in part.split(",") if name}
    if unknown := sorted(wanted - set(PROBES) - {"all"}):
        raise InputError(f"‹kinds› {unknown[0]}: unknown; choose one of all, {', '.join(PROBES)}")
    if not wanted:
        raise InputError(f"‹kinds›: missing; choose one of all, {', '.join(PROBES)}")
    lacking = {name: reason for name, row in PROBES.items() if (reason := missing(row, options))}
    for name in PROBES:
        if name in wanted and name in lacking:
            raise InputError(f"‹kinds› {name}: {lacking[name]}")
        if name not in wanted and name in lacking and "all" in wanted:
            log.info(Message(f"{name} is left out: it {lacking[name]}"))
    return [name for name in PROBES if name in wanted or ("all" in wanted and name not in lacking)]
