"""A PostgreSQL server in a temporary folder, on a unix socket, which tests may stop, crash and start again."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from timing import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

_names = itertools.count(1)


class PostgresServer:
    """The server; it runs as a user who is not root, as PostgreSQL demands."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="face_async-"))
        self.data = self.folder / "data"
        self._user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self.folder, **self._user)
        # Without fsync: no test cuts the power, and the system keeps what was written when a process is killed.
        self._run("initdb", "--auth=trust", "--username=tests", "--encoding=UTF8", "--locale=C", "--no-sync",
                  "--wal-segsize=1")  # fmt: skip
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\n")
            settings.write("fsync = off\nmax_connections = 200\n")
        self.start()

    def start(self, largest_file: int | None = None) -> None:
        """Start it, perhaps so that no file can grow beyond so many bytes, as on a disk that is full."""
        within = [] if largest_file is None else ["prlimit", f"--fsize={largest_file}:"]
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder / 'log'}", within=within)

    def crash(self) -> None:
        """Kill it at once, with all that it was doing."""
        os.kill(self.pid, signal.SIGQUIT)  # an immediate stop: nothing is finished or written
        while self.is_running():
            os.sched_yield()

    def kill_a_backend(self) -> None:
        """Kill a process that serves a connection; in answer all of them end, and the server recovers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in map(int, children):
            title = Path(f"/proc/{child}/cmdline").read_bytes()
            if title.startswith(b"postgres: tests"):
                os.kill(child, signal.SIGKILL)
                return
        raise AssertionError("nobody is connected")

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server, and wait until it holds."""
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(self.url_of("-cdefault_transaction_read_only=off"), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")
        with psycopg.connect(self.url_of("-cclient_min_messages=warning"), autocommit=True) as connection:
            while connection.execute(f"SHOW {name}").fetchone() != (value,):
                time.sleep(0.01)

    def is_running(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid, 0)
            return True
        return False

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def url(self, **options: str) -> str:
        """Return the URL of a new place for tables."""
        path = f"tests{next(_names)}"
        self.execute(f"CREATE SCHEMA {path}")
        return self.url_of(f"-csearch_path={path}")

    def url_of(self, options: str, database: str = "postgres") -> str:
        return f"postgresql://tests@/{database}?host={quote(str(self.folder), '')}&options={quote(options, '')}"

    def execute(self, statement: str) -> None:
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(self.url_of("-cclient_min_messages=warning"), autocommit=True) as connection:
            connection.execute(statement)

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str, within: Sequence[str] = ()) -> None:
        command = [*within, shutil.which(program), f"--pgdata={self.data}", *arguments]
        output = {
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
        }
        subprocess.run(command, check=True, timeout=PATIENCE, cwd=self.folder, **output, **self._user)
