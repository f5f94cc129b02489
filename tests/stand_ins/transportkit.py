"""What the tests of transports share: answers, and what a raw server and the kernel know of connections."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from doubles import envelope
from timing import PATIENCE

from face_async import RetryPolicy

ONCE = RetryPolicy(max_attempts=1)
INFO = envelope({"person_id": "p", "person_name": "Ada", "face_ids": [], "group_ids": [], "tag": ""})
ADDED = envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]})


async def head_seen(server, count=1):
    """Wait until the server has read the heads of so many more requests."""
    for _ in range(count):
        assert await anyio.to_thread.run_sync(server.began.acquire, True, PATIENCE)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@asynccontextmanager
async def every_open_connection_closed(server):
    """Assert that the client's ends of a server's connections are closed soon after the block."""
    yield
    port = f":{int(server.host.rpartition(':')[2]):04X}"

    def established():
        rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()]
        return [row for row in rows if row[2].endswith(port) and row[3] == "01"]  # remote address, state

    with anyio.move_on_after(PATIENCE):
        while established():  # noqa: ASYNC110 - the kernel has no events for it
            await anyio.sleep(0.01)
    assert established() == []
