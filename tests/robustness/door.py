"""A door to the command line that survives whatever lies behind it.

A server imports the package once and forks a process for each command, so that a command costs
milliseconds and may still be killed, hang, run out of memory or crash. `Door` talks to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refocus.signals import interruptible

ROOT = Path(__file__).parents[2]
_MODULES = (  # what a command would import itself, at a cost of seconds
    "accelerate",
    "matplotlib.figure",
    "safetensors.torch",
    "sklearn.metrics",
    "skimage.filters",
    "timm",
    "torchvision.transforms.v2",
    "refocus.cli.main",
    "refocus.evaluation.prove",
    "refocus.flow.run",
    "refocus.masks.folder",
    "refocus.probes.registry",
    "refocus.reports.audit",
    "refocus.reports.before_after",
    "refocus.reports.explanations",
    "refocus.studies.registry",
    "refocus.tuning.tune",
)
_STOPS = (signal.SIGINT, signal.SIGTERM)
MEMORY = 6 * 2**30  # bytes of address space that a command may take beyond what the server has


@dataclass(frozen=True)
class Done:
    """How a command ended.

    status: its exit status, or minus the signal that ended it. peak: bytes of memory.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak: int = 0
    timed_out: bool = False

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]

    def __str__(self) -> str:
        said = f"{self.out[-500:]}\n{self.err[-3000:]}"
        return f"status {self.status} after {self.seconds:.1f} s\n{said}"


class Door:
    """One server; commands run one after the other."""

    def __init__(self) -> None:
        here = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "COLUMNS": "200",
            "HF_HUB_OFFLINE": "1",
        }
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.robustness.door"],
            cwd=ROOT,
            env=here,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        *arguments: object,
        cwd: Path | None = None,
        timeout: float = 60,
        after: float | None = None,
        send: int = signal.SIGKILL,
        limits: dict[str, int] | None = None,
        env: dict[str, str] | None = None,
    ) -> Done:
        """Run `refocus ARGUMENTS`.

        after, send: seconds after which it gets this signal. limits: names of `resource.RLIMIT_...`
        and their values.
        """
        self._send(
            {
                "argv": [str(a) for a in arguments],
                "cwd": str(cwd or ROOT),
                "limits": limits or {},
                "env": env or {},
            }
        )
        pid = self._receive()["pid"]
        ended, killed = threading.Event(), threading.Event()
        watch = threading.Thread(
            target=_watch, args=(pid, ended, killed, timeout, after, send), daemon=True
        )
        watch.start()
        answer = self._receive()
        ended.set()
        watch.join()
        return Done(**answer, timed_out=killed.is_set())

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(20)
        assert self.server.stdout is not None
        self.server.stdout.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()

    def _receive(self) -> Any:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())


def _watch(
    pid: int,
    ended: threading.Event,
    killed: threading.Event,
    timeout: float,
    after: float | None,
    send: int,
) -> None:
    """Send the signal in time; a command that hangs is killed with all its workers."""
    started = time.monotonic()
    if after is not None and not ended.wait(after):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, send)
    if not ended.wait(max(0.0, timeout - (time.monotonic() - started))):
        killed.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


# --- the other side -----------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until the input ends."""
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that an import prints may disturb the talk
    for module in _MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else the first collection in a fork copies all that was imported
    for text in sys.stdin:
        request = json.loads(text)
        started = time.monotonic()
        pipes = [_pipe(), _pipe()]
        # a signal that comes while it starts waits for the command, which alone can speak of it
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if pid == 0:
            _command(request, [write for _, write in pipes])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        talk.write(json.dumps({"pid": pid}) + "\n")
        talk.flush()
        _, status, used = os.wait4(pid, 0)
        out, err = (_said(*pipe) for pipe in pipes)
        answer = {
            "status": os.waitstatus_to_exitcode(status),
            "out": out,
            "err": err,
            "seconds": time.monotonic() - started,
            "peak": used.ru_maxrss << 10,
        }
        talk.write(json.dumps(answer) + "\n")
        talk.flush()


def _pipe() -> tuple[int, int]:
    """Wide enough for all that a command says; a file would fall under the limit on files."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(read, False)  # a worker that is left behind may hold the other end
    return read, write


def _said(read: int, write: int) -> str:
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        return (pipe.read() or b"").decode(errors="replace")


def _command(request: dict[str, Any], pipes: list[int]) -> None:
    """In the fork: become the command, and never return."""
    import multiprocessing.util

    from refocus import locks

    code = 1
    try:
        os.setpgid(0, 0)
        for number, pipe in enumerate(pipes, 1):
            os.dup2(pipe, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        _limit({"RLIMIT_AS": _taken() + MEMORY, **request["limits"]})
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        sys.argv = ["refocus", *request["argv"]]
        from refocus import progress
        from refocus.cli import ending, main

        progress.PATIENCE = math.inf  # on a busy machine its lines would come at random
        ending.interruptible = _listening
        main.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):  # as leaving Python would
            multiprocessing.util._exit_function()
            locks._release_all()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """`interruptible`, which from here on hears the signals that were held back."""
    with interruptible():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        yield


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it: an OSError instead


def _taken() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    serve()
