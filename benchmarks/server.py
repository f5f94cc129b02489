"""A server that costs next to nothing: it counts a request's bytes, forgets them, and gives a fixed answer.

Run as a program of its own, so that a client's CPU time is the client's alone. It prints its port, and ends when its
standard input does.
"""

# ruff: noqa: D102 - an overriding method is documented where it was declared

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
from functools import cache
from typing import TYPE_CHECKING, ClassVar, cast

from workloads import ADDED_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 65_536
BUFFER_BYTES = 256 * 1024
SLOW_BYTES, SLOW_SECONDS = 64 * 1024, 0.1
"""A slow server takes so many bytes of a connection at a time, and then rests so long."""


def _envelope(data: dict[str, object]) -> bytes:
    content = json.dumps({"code": 0, "message": "OK", "data": {"session_id": "s" * 32, **data}}).encode()
    return _response("200 OK", content)


def _response(status: str, content: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


_CANDIDATE = {"person_id": "person3", "face_id": "1031567119985213439", "confidence": 54.9, "tag": "new tag"}
ANSWERS = {
    b"/face/identify": _envelope({"candidates": [_CANDIDATE, {**_CANDIDATE, "confidence": 44.1}]}),
    b"/face/getfaceids": _envelope({"face_ids": []}),
}


@cache
def _added(count: int) -> bytes:
    """Return the answer to an addface request of so many pictures."""
    ids = [str(1031567119985213439 + index) for index in range(count)]
    return _envelope({"added": count, "face_ids": ids, "ret_codes": [0] * count})


class Connection(asyncio.BufferedProtocol):
    """One connection. All share one buffer, since whatever comes is dealt with at once."""

    buffer: ClassVar[memoryview]
    latency: ClassVar[float] = 0.0
    slow: ClassVar[bool] = False

    def __init__(self) -> None:
        self._head = b""
        self._left = 0  # bytes of the body still to come
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left > nbytes:
            self._left -= nbytes
        else:
            self._take(bytes(self.buffer[self._left : nbytes]))
        if self.slow and self._left:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, rest: bytes) -> None:
        """Deal with what follows the present body, which is complete."""
        if self._left:
            self._left = 0
            self._respond()
        self._head += rest
        while (end := self._head.find(b"\r\n\r\n")) >= 0:
            head, rest = self._head[:end], self._head[end + 4 :]
            self._begin(head)
            self._head = rest[self._left :]
            self._left = max(0, self._left - len(rest))
            if self._left:
                return
            self._respond()
        if len(self._head) > MAX_HEAD_BYTES:
            self._transport.close()

    def _begin(self, head: bytes) -> None:
        line, _, fields = head.partition(b"\r\n")
        path = line.split(b" ", 2)[1]
        self._left = 0
        for field in fields.lower().split(b"\r\n"):
            name, _, value = field.partition(b":")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                self._answer = _response("411 Length Required", b"{}")
                return
        if path == b"/face/addface":
            self._answer = _added(max(1, self._left // ADDED_BYTES))
        else:
            self._answer = ANSWERS.get(path) or _response("404 Not Found", b"{}")

    def _respond(self) -> None:
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self._write, self._answer)
        else:
            self._write(self._answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    if Connection.slow:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BYTES)  # or the kernel would be the fast reader
    async with await loop.create_server(Connection, sock=listener, backlog=4096):
        print(listener.getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds from a request to its answer")
    parser.add_argument("--slow", action="store_true", help="read bodies slowly")
    parser.add_argument("--core", type=int, default=-1, help="the core to stay on")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us ends us
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Connection.latency, Connection.slow = options.latency, options.slow
    Connection.buffer = memoryview(bytearray(SLOW_BYTES if options.slow else BUFFER_BYTES))
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop  # noqa: PLC0415 - optional

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
