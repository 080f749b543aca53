"""How the demo runs. Imports no torch, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from refocus.settings import Device, Seed, about, check


@dataclass(frozen=True)
class DemoSettings:
    """How the demo runs.

    Raises:
        InputError: a value that is not legal.
    """

    seed: Annotated[Seed, about("Seed of all random choices.")] = 0
    device: Device = "cpu"  # minutes there, and the numbers of the docs

    def __post_init__(self) -> None:
        check(self)
