"""Clock and memory for the other benchmarks.

Variants of one task are interleaved in one run, so that their ratios are of the same minutes.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from torch.profiler import ProfilerActivity, profile

clock: Callable[[], float] = time.perf_counter  # of `interleaved`


def processor() -> float:
    """Seconds of the processor, of this process and of those that it has waited for.

    Beside other work these say more than the time on the wall.
    """
    return sum(os.times()[:4])


def parser_on_masks(about: str | None) -> argparse.ArgumentParser:
    """A parser that asks for a model, images and their masks; about: the script's docstring."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    return parser


def interleaved(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, in turns; the first round is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, call in variants.items():
            start = clock()
            call()
            if number:
                spent[name].append(clock() - start)
    return spent


def ratio(spent: dict[str, list[float]], name: str, base: str) -> tuple[float, float, float]:
    """Median over rounds of time / time of the base in the same round, with its quartiles."""
    ratios = np.array(spent[name]) / np.array(spent[base])
    return float(median(ratios)), float(np.quantile(ratios, 0.25)), float(np.quantile(ratios, 0.75))


def tensor_peak(call: Callable[[], Any]) -> float:
    """MiB that torch's allocator holds at most during a call, above what it held before.

    Measured on the second call: the first sets up.
    """
    call()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        call()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return float(held.max()) / 2**20


def process_peak(script: str, arguments: list[str]) -> float:
    """MiB that a fresh process grew by during `peak_of(call)`, as `script` prints it."""
    done = subprocess.run(
        [sys.executable, script, *arguments], check=True, capture_output=True, text=True
    )
    return float(done.stdout.strip().splitlines()[-1])


def peak_of(call: Callable[[], Any], times: int = 3) -> float:
    """MiB by which this process's peak rises over its size before the calls.

    Linux only; `getrusage` would tell the parent's peak.
    """
    gc.collect()
    before = _status("VmRSS")
    for _ in range(times):
        call()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    line = next(
        line
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith(field)
    )
    return int(line.split()[1]) / 2**10


def machine() -> str:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    flags = " ".join(
        sorted(
            f
            for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
            if f in Path("/proc/cpuinfo").read_text(encoding="utf-8")
        )
    )
    return (
        f"{names[0] if names else platform.processor()} ({flags}), {torch.get_num_threads()} "
        "threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    )
