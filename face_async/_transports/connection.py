"""One connection over asyncio, on which requests are sent one after another."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, cast

import anyio

from face_async._transports import target
from face_async._transports.answers import no_connection
from face_async._transports.base import Answer, BadResponse, Reason, TransportFailure
from face_async._transports.link import Link, connect
from face_async._transports.parsers import BrokenAnswerError, new_parser

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from face_async._transports.base import RequestBody, Timeouts
    from face_async._transports.target import Target

_SLICE_BYTES = 16 * 1024
"""Parsed at once: as informational answers, which are the dearest, they take h11 some 20 ms."""


class Connection(Link):
    """A connection, before and after it is open, and the call that uses it.

    A call is :meth:`start`, :meth:`open` if the connection is a new one, :meth:`exchange` and :meth:`stop`. It waits
    for nothing but a future, so one timer is enough for it, and :meth:`fail` ends it whatever it waits for.

    Args:
        where: Where it leads.
        on_lost: Called when it was lost between two calls.
        tls: What decides whether the server's certificate is good; None is what does for all who name nothing else.
    """

    def __init__(
        self, where: Target, on_lost: Callable[[Connection], object], tls: ssl.SSLContext | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = where
        self._on_lost = on_lost
        self._tls = tls
        self._parser = new_parser()
        self._written = False
        self._uploaded = False
        self._over: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._scope: anyio.CancelScope | None = None
        self._failure: TransportFailure | BadResponse | None = None
        self._step = self._deadline = self._since = 0.0

    # One call

    def start(self, timeouts: Timeouts) -> None:
        """Begin a call."""
        self._since = time.monotonic()
        self._step = timeouts.step
        self._deadline = self._since + timeouts.whole
        self._written = self._uploaded = False
        self._over = self._loop.create_future()
        self.wake_by(self._since + min(timeouts))
        self._parser.begin()

    async def open(self) -> None:
        """Connect.

        Raises:
            TransportFailure: There is no connection.
        """
        where = self._target
        tls = (self._tls or target.trusted_authorities()) if where.secure else None
        problem = ""
        try:
            with anyio.CancelScope() as self._scope:
                await connect(self, where.host, where.port, tls=tls)
        except (OSError, UnicodeError) as error:
            problem = no_connection(error)
        finally:
            self._scope = None
        # Raised out here, so that no foreign exception hangs on it as its context.
        if self._failure is not None:
            raise self._take_failure()
        if problem:
            raise TransportFailure(problem, unsent=True)

    async def exchange(self, head: bytes, body: RequestBody) -> Answer:
        """Send a request and return its answer.

        Raises:
            TransportFailure: No complete answer came back.
            BadResponse: The answer is not one to read.
            FaceError: Whatever reading the body raised.
        """
        over = cast("asyncio.Future[None]", self._over)
        segments = body.in_one_go()
        if segments is None:
            await self._upload(head, body, over)
        else:
            self._write(b"".join((head, *segments)))
            self._uploaded = True
        if not over.done():
            await over
        if self._failure is not None:
            raise self._take_failure()
        return self._parser.take()

    def stop(self) -> bool:
        """End a call, and return whether the connection may serve another one."""
        self._over = self._failure = None
        self._parser.forget()
        return self._parser.reusable and self._uploaded and self.is_open and not self.paused

    def fail(self, reason: str) -> None:
        """End the call under way, if it is not yet over."""
        self._end(TransportFailure(reason, unsent=not self._written))

    def _end(self, failure: TransportFailure | BadResponse) -> None:
        if self._over is None or self._over.done():
            return
        self._failure = failure
        self._finish()
        if self._scope is not None:
            self._scope.cancel()

    async def _upload(self, head: bytes, body: RequestBody, over: asyncio.Future[None]) -> None:
        """Send a request chunk by chunk, until an answer comes or the call is ended otherwise."""
        left = body.length
        try:
            with anyio.CancelScope() as self._scope:
                while left and not over.done():
                    self._since = math.inf  # reading the body may take all the time there is
                    left -= self._pass_on(head, await anext(body, None), left)  # no variable: it would keep the chunk
                    head = b""
                    await self._drain(over)
        finally:
            self._scope = None
            self._since = time.monotonic()

    def _pass_on(self, head: bytes, chunk: bytes | None, left: int) -> int:
        """Write a chunk of a body of which so much is left, and return its size."""
        if chunk is None or len(chunk) > left:
            self.fail("the body is not as long as it said")
            return 0
        if self._over is not None and not self._over.done():
            self._write(head + chunk)
            self._uploaded = len(chunk) == left
        return len(chunk)

    def _write(self, data: bytes) -> None:
        self._written = True
        self._since = time.monotonic()
        self.send(data)
        if not self.is_open:
            self.fail(Reason.BROKEN_CONNECTION)

    async def _drain(self, over: asyncio.Future[None]) -> None:
        """Wait until all that was written is on its way, or the call is over; look at what has come meanwhile."""
        await asyncio.sleep(0)
        while self.paused and not over.done():
            self._room = self._loop.create_future()
            await self._room

    def on_time(self) -> None:
        if self._over is None or self._over.done():
            return
        now = time.monotonic()
        due = min(self._since + self._step, self._deadline)
        if now < due:
            self.wake_by(due)
        elif not self.is_open:
            self.fail(Reason.CONNECT_TIMEOUT)
        else:
            self.fail(Reason.DEADLINE if now >= self._deadline else Reason.TIMEOUT)

    def _take_failure(self) -> TransportFailure | BadResponse:
        """Return what ended the call, and let go of it: an exception that is held from below is a circle."""
        failure, self._failure = self._failure, None
        return cast("TransportFailure | BadResponse", failure)

    def _finish(self) -> None:
        """Wake up whoever waits."""
        for future in (self._over, self._room):
            if future is not None and not future.done():
                future.set_result(None)

    # Between two calls

    def serves(self, where: Target) -> bool:
        """Return whether it leads there, and neither bytes nor an end have come on it."""
        return self.is_open and self._target.is_beside(where) and not self.has_news()

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        if self._over is None or self._over.done():
            self.abort()  # what comes behind an answer is no answer
            return
        self._since = time.monotonic()
        if not self._written:
            self.fail(Reason.BROKEN_HTTP)
            return
        try:
            self._read(data)
        except BadResponse as refused:
            self._end(refused.with_traceback(None))
        except BrokenAnswerError:
            self.fail(Reason.BROKEN_HTTP)

    def _read(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE_BYTES):
            if self._parser.whole:
                self.abort()
            elif self._parser.feed(data[start : start + _SLICE_BYTES]):
                self._finish()
            elif time.monotonic() >= self._deadline:
                self.on_time()
                break

    def eof_received(self) -> None:
        self.is_open = False
        if self._over is not None and not self._over.done() and self._parser.end():
            self._finish()
        else:
            self.fail(Reason.BROKEN_HTTP)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.fail(Reason.BROKEN_CONNECTION if exc else Reason.BROKEN_HTTP)
        self._on_lost(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._since = time.monotonic()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
