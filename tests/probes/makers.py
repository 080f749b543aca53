"""What tests of probes make: a batch, a call of the command."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from refocus.cli import main as command
from refocus.probes.batch import Batch, Options


def batch(
    model: nn.Module, count: int = 3, masks: Tensor | None = None, **options: object
) -> Batch:
    pixels = torch.rand(count, 3, 32, 32)
    return Batch(
        model,
        pixels,
        torch.arange(count) % 4,
        list(range(count)),
        [],
        Path(),
        Options(**options),
        masks,
    )


def run(*args: object) -> str:
    result = CliRunner().invoke(command.app, ["probe", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output
