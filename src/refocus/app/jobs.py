"""Long work of the app: commands of refocus as processes of their own.

They go on when a browser tab is closed and end with the app. One that outlived its app, because
that was killed, is found at the next start: it holds a lock on its record as long as it lives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from refocus import outputs
from refocus.errors import InputError
from refocus.files import read_json
from refocus.records import from_json, to_json

try:
    import fcntl
except ImportError:  # Windows: models are compared, but no job is started
    fcntl = None  # type: ignore[assignment]

_WAIT = 20.0  # seconds for a process to end by itself
_STOPPED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)  # exit statuses of one that did not fail
# the current folder is no place to import from: `-m` would put it first
_COMMAND = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    "from refocus.cli.main import main; main()"
)


@dataclass(frozen=True)
class Record:
    """What the next start needs to know of a job."""

    command: list[str]
    folder: str
    pid: int


@dataclass
class Job:
    """One command.

    folder: what it writes. record: the file it holds a lock on; beside it, with the suffix .log, is
    what it says. pid: of a process that an earlier start of the app began.
    """

    command: list[str]
    folder: Path
    record: Path | None = None
    pid: int | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it as a process, in a group of its own."""
        assert self.record is not None
        if fcntl is None:
            raise InputError("jobs of the app need Linux or macOS; start the command itself")
        self.record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (
            self.record.open("a+", encoding="utf-8") as held,
            self.record.with_suffix(".log").open("w", encoding="utf-8") as said,
        ):
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.record.stem}: is already running") from error
            self.process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[held.fileno()],  # so the lock lives as long as the process
                start_new_session=True,
            )
            self.pid = self.process.pid
            held.truncate(0)
            json.dump(to_json(Record(self.command, str(self.folder), self.pid)), held)

    @property
    def running(self) -> bool:
        """Whether it is at work, also where another start of the app began it."""
        if self.process is not None:
            return self.process.poll() is None
        return self.record is not None and _held(self.record)

    @property
    def failed(self) -> bool:
        """Whether it ended with an error; of another start's job nobody knows."""
        return self.process is not None and self.process.poll() not in (None, *_STOPPED)

    @property
    def complete(self) -> bool:
        """Whether all that it writes is there."""
        return not self.running and (self.folder / outputs.MANIFEST).exists()

    @property
    def words(self) -> str:
        """Its last error, for people."""
        log = self.record.with_suffix(".log") if self.record else None
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines()
            if log and log.exists()
            else []
        )
        return next((line for line in reversed(lines) if line.startswith("error:")), "")

    @property
    def last(self) -> str:
        """The last line that it said: how far it is."""
        log = self.record.with_suffix(".log") if self.record else None
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines()
            if log and log.exists()
            else []
        )
        return lines[-1] if lines else ""

    def stop(self) -> None:
        """End it and all that it started: asked first, killed where it does not hear."""
        if not self.running or self.pid is None:
            return
        for sign, seconds in ((signal.SIGTERM, _WAIT), (signal.SIGKILL, _WAIT)):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            if self._ended(seconds):
                return

    def _ended(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            time.sleep(0.05)
        return not self.running


def _held(record: Path) -> bool:
    """Whether a process holds the lock on a job's record."""
    if fcntl is None:
        return False
    try:
        file: IO[str] = record.open(encoding="utf-8")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def command_line(command: str, **given: Any) -> list[str]:
    """A command of refocus and its parameters as its words; True is a switch."""
    words = [command]
    for name, value in given.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    return words


class Jobs:
    """All jobs of an app by name, and the runs that earlier ones left in its work folder."""

    def __init__(self, work: Path) -> None:
        """work: the app's folder; jobs of an earlier start that are still at work are found."""
        self.work = work
        self.jobs: dict[str, Job] = dict(self._outlived())
        self._lock = threading.Lock()

    def _outlived(self) -> Iterator[tuple[str, Job]]:
        for file in sorted((self.work / ".jobs").glob("*.json")):
            if not _held(file):
                file.unlink(missing_ok=True)
                continue
            try:
                record = from_json(read_json(file), Record, file)
            except InputError:  # the app was killed before it had written whom it started
                continue
            yield file.stem, Job(record.command, Path(record.folder), file, record.pid)

    def runs(self) -> list[str]:
        """The tuning runs in the work folder, the newest first.

        One that was just started has no file there yet.
        """
        found = {file.parent.name for file in self.work.glob("run-*/recipe.json")}
        return sorted(
            found | {name for name in list(self.jobs) if name.startswith("run-")}, reverse=True
        )

    def running(self, prefix: str = "") -> str | None:
        """The job at work whose name begins so; there is at most one."""
        names = [name for name in list(self.jobs) if name.startswith(prefix)]
        return next((name for name in names if self.jobs[name].running), None)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a job, or such a run of an earlier start."""
        return name in self.jobs or name in self.runs()

    def __getitem__(self, name: str) -> Job:
        """A job by its name, or a run that lies in the work folder and of which nothing runs."""
        if name not in self.jobs and name in self.runs():
            return Job([], self.work / name)
        return self.jobs[name]

    def start(self, name: str, command: list[str], folder: Path) -> Job:
        """Start a command of refocus that writes `folder`.

        Raises:
            InputError: another job is at work.
        """
        with self._lock:
            if busy := self.running():
                raise InputError(
                    f"another job is running ({busy}); stop it first or wait: two would only slow "
                    "each other"
                )
            self.jobs[name] = Job(command, folder, self.work / ".jobs" / f"{name}.json")
            self.jobs[name].start()
            return self.jobs[name]

    def stop_all(self) -> None:
        """Stop every job, as the app does when it ends."""
        for job in self.jobs.values():
            job.stop()
