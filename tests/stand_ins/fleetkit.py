"""What the tests of fleets share: a server on a socket that counts what is in flight, people, and the oracle."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import time
from concurrent.futures import Executor
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from attrs import define, field
from doubles import CREDENTIALS
from ingestkit import APPID, BUCKET, RECOGNIZER, enrolled

from face_async.fleet.plan import rows_of
from face_async.fleet.state import open_state
from face_async.server import Store, create_app, serve_in_background
from face_async.session import ProjectAccess

PROGRAM = "from face_async.cli import main; main()"

# A cluster of four workers, which ends with its input; its files are in the folder that it is given.
RAY = """
import sys, ray
ray.init(
    "local", num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20,
    _temp_dir=sys.argv[1],
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
RAY_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@define
class Metered:
    """The server's application, counting its calls.

    Attributes:
        in_flight: Requests that are under way.
        most: The most that ever were.
        times: When each request has come.
        paths: The endpoints that were called.
    """

    app: object
    store: Store
    base_url: str = ""
    in_flight: int = 0
    most: int = 0
    times: list[float] = field(factory=list)
    paths: list[str] = field(factory=list)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self.times.append(time.monotonic())
        self.paths.append(scope["path"].rpartition("/")[2])
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1

    @property
    def enrolled(self):
        """As :func:`ingestkit.enrolled`."""
        return enrolled(self.store)


class Recorded(Executor):
    """Hands tasks on to an executor, and keeps what they are on a network."""

    def __init__(self, executor, dumps=pickle.dumps):
        self.executor = executor
        self.dumps = dumps
        self.sent = []

    def submit(self, fn, *args, **kwargs):
        self.sent.append(self.dumps((fn, args, kwargs)))
        return self.executor.submit(fn, *args, **kwargs)


@contextlib.contextmanager
def metered_server(db=":memory:"):
    """Serve the toy pictures of ``ingestkit`` on a socket, from a thread of this process."""
    with Store(db) as store, start_blocking_portal() as portal:
        meter = Metered(create_app(store, credentials=CREDENTIALS, recognizer=RECOGNIZER), store)
        with portal.wrap_async_context_manager(serve_in_background(meter)) as running:
            meter.base_url = running.base_url
            yield meter


def environment_of(base_url):
    return ProjectAccess(APPID, BUCKET, CREDENTIALS).environment(base_url)


def all_rows(state):
    """Return the rows of every part of a run."""
    opened = open_state(state)
    return [list(rows_of(opened, int(path.stem))) for path in sorted((state / "plan").glob("0*.jsonl"))]


def workers_below(pid):
    """Return the process ids of the workers that a driver has begun."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return [int(child) for child in children if b"face_async.fleet.engines.worker" in command_of(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def kill_some(pid, rng: random.Random):
    """Kill one of the workers of a driver, and return whether there was one."""
    found = workers_below(pid)
    if found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)
    return bool(found)
