"""The servers that are measured: those of this project's checkouts, and the least that their stack can do."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from clients import APPID, BUCKET, SECRET_ID, SECRET_KEY
from processes import HERE, Child, computed, family, peak, resident, script

FILES = 1_024
"""Files that a server may open, unless it asks for more: what Linux usually gives."""

PROGRAM = "-c", "from face_async.cli import main; main()"
_numbers = itertools.count(1)


class Server:
    """A running server, with all its processes.

    Attributes:
        child: The process that was started.
        host: Where it listens.
        port: Where it listens.
    """

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        limited = ["sh", "-c", f'ulimit -Sn {FILES}; exec "$@"', "sh", *command]
        self.child = Child(limited, environment)
        self.base_url = self.child.ask().strip().rpartition("=")[2]  # "export NAME=URL", or the URL alone
        address = urlsplit(self.base_url)
        self.host, self.port = str(address.hostname), int(address.port or 80)

    def resident(self) -> float:
        """Return the bytes that are in memory now."""
        return sum(map(resident, family(self.child.pid)))

    def peak(self) -> float:
        """Return the most bytes that were in memory since the start, or since :meth:`forget_peak`."""
        return sum(map(peak, family(self.child.pid)))

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        for process in family(self.child.pid):
            Path(f"/proc/{process}/clear_refs").write_text("5")

    def computed(self) -> float:
        """Return the seconds computed so far."""
        return sum(map(computed, family(self.child.pid)))


@dataclass(frozen=True)
class Filling:
    """What is in a database: groups, persons in each of them, and faces of each person."""

    groups: int
    persons: int
    faces: int


@dataclass(frozen=True)
class Checkout:
    """A state of this project, run by the Python in its ``.venv`` if it has one.

    Attributes:
        name: What it is called in the tables.
        folder: Where it is.
        options: Further options of its ``face-async serve``.
        postgres: The URL of a PostgreSQL server, as one who may create databases there; empty: faces are in files.
    """

    name: str
    folder: Path
    options: str = ""
    postgres: str = ""

    def serve(self, database: Path | str, recognizer: str) -> Server:
        """Start ``face-async serve``."""
        program = [self._python(), *PROGRAM, "serve"]
        options = ["--db", str(database), "--port", "0", "--recognizer", recognizer, *shlex.split(self.options)]
        account = {"APPID": APPID, "BUCKET": BUCKET, "SECRET_ID": SECRET_ID, "SECRET_KEY": SECRET_KEY}
        return Server(program + options, {**self._path(), **{f"FACE_ASYNC_{name}": it for name, it in account.items()}})

    def fill(self, database: Path, recognizer: str, picture: Path, filling: Filling) -> Path | str:
        """Make a database with these persons, and return it: the file, or a new database of PostgreSQL."""
        counts = [str(count) for count in (filling.groups, filling.persons, filling.faces)]
        command = [self._python(), str(HERE / "fill.py"), str(database), recognizer, str(picture), *counts]
        subprocess.run(command, check=True, env={**os.environ, **self._path()})  # noqa: S603 - our own
        return self._copied(database) if self.postgres else database

    def _copied(self, database: Path) -> str:
        name = f"face_async_bench_{os.getpid()}_{next(_numbers)}"
        ask_postgres(self.postgres, f"CREATE DATABASE {name}")
        url = urlsplit(self.postgres)._replace(path=f"/{name}").geturl()
        command = [self._python(), *PROGRAM, "copy-db", str(database), url]
        subprocess.run(command, check=True, env={**os.environ, **self._path()}, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
        return url

    def _python(self) -> str:
        own = self.folder / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def _path(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder)}


def disk(database: Path | str) -> float:
    """Return the bytes of a database."""
    if isinstance(database, str):
        return float(ask_postgres(database, "SELECT pg_database_size(current_database())"))
    return float(sum(file.stat().st_size for file in database.parent.glob(f"{database.name}*")))


def ask_postgres(url: str, statement: str) -> int:
    """Execute a statement, and return its one number; 0 if it has none."""
    with import_module("psycopg").connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return int(cursor.fetchone()[0]) if cursor.description else 0


def hello() -> Server:
    """Start the server that only says hello."""
    return Server(script("hello.py"))
