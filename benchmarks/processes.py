"""Programs that a benchmark starts, and what they cost."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent


def script(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a script of this folder."""
    return [sys.executable, str(HERE / name), *arguments]


class Child:
    """A program that says a line when it is ready, or for every line it hears."""

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would stop the program
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(  # noqa: S603 - our own
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env={**os.environ, **(environment or {})}
        )
        self.pid = self._process.pid

    def ask(self, line: str = "") -> str:
        """Say a line if there is one, and return the answer, or raise what the program died of."""
        with contextlib.suppress(BrokenPipeError):
            if line:
                print(line, file=self._process.stdin, flush=True)
        if self._process.stdout and (said := self._process.stdout.readline()):
            return said
        code = self._process.wait()
        error = self.errors().strip()
        raise RuntimeError(error.splitlines()[-1] if error else f"exit code {code}")

    def errors(self) -> str:
        """Return what the program has written to its standard error."""
        self._errors.seek(0)
        return self._errors.read()

    def stop(self, seconds: float = 60.0) -> None:
        """Tell it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait(seconds)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def family(process: int) -> list[int]:
    """Return a process, its children, and theirs."""
    tasks = Path(f"/proc/{process}/task")
    children = [int(child) for task in tasks.glob("*/children") for child in _read(task).split()]
    return [process, *(each for child in children for each in family(child))]


def resident(process: int) -> float:
    """Return the bytes of a process that are in memory now, nan where that cannot be known."""
    return _status(process, "VmRSS")


def peak(process: int) -> float:
    """Return the most bytes of a process that ever were in memory, nan where that cannot be known."""
    found = _status(process, "VmHWM")  # getrusage's figure is inherited from whoever started it
    if found != found and process == os.getpid():  # noqa: PLR0124 - it is nan
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found


def computed(process: int) -> float:
    """Return the seconds that a process has computed, with those of its children that have ended."""
    try:
        # The clock that clock_getcpuclockid(3) names, which Python does not have; /proc counts in steps of 10 ms.
        own = time.clock_gettime((~process << 3) | 2)
    except OSError:  # it has ended, or this system has no such clocks
        return 0.0
    fields = _read(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return own + sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


def _status(process: int, name: str) -> float:
    lines = _read(Path(f"/proc/{process}/status")).splitlines()
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{name}:")), float("nan"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended, or this system has no such files
        return ""
