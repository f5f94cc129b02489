"""The same seam over pyreqwest, the Rust client with a pool of its own: asyncio only, and several times cheaper."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Coroutine
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from face_async._transports.base import (
    KEEPALIVE_SECONDS,
    MAX_ANSWER_BYTES,
    Answer,
    BadResponse,
    Transport,
    TransportFailure,
)
from face_async.errors import FaceError

try:
    from pyreqwest.client import ClientBuilder
    from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError, RequestTimeoutError
except ImportError:
    raise ImportError("http='reqwest' needs the extra 'speed': pip install 'face_async[speed]'") from None

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from pyreqwest.client import Client
    from pyreqwest.request import StreamRequest
    from pyreqwest.response import Response

    from face_async._transports.base import RequestBody, Timeouts

_READ_BYTES = 64 * 1024
_AFTER_CONNECTING = timedelta(milliseconds=50)


@cache
def _prepare_process() -> None:
    """Do what the library needs once in a process that opens a client."""
    # The library's thread may still be releasing Python objects when the program has ended, and CPython 3.11 aborts a
    # process in which a foreign thread does so while the interpreter shuts down: wait until it is done.
    atexit.register(time.sleep, 0.1)
    # Once a block of this size has been freed, glibc keeps the memory of small bodies for the next ones. Until then it
    # returns it to the system and takes it back page by page, which is a third of what uploads cost.
    bytes(2 * 1024 * 1024)


class Reqwest(Transport):
    """A client of pyreqwest, with a pool, for each timeout in use: one, unless copies of the session have their own.

    A call that is cancelled, or under way when the session is closed, ends at once, but its connection is left to the
    library, which keeps it until the answer comes or the time for it is over.

    A step of ``timeouts`` is the time for connecting, for the answer to begin once the request is on its way, and for
    each further read.
    """

    def __init__(self) -> None:
        self._clients: dict[float, Client] = {}
        self._busy = 0
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:
        # What is ready in this turn of the event loop goes over together, and wakes the library's thread up once.
        await checkpoint()
        if self._closed:
            raise TransportFailure("the session was closed", unsent=True)
        client = self._clients.get(timeouts.step) or self._open(timeouts.step)
        self._busy += 1
        try:
            request = client.post(url).headers(headers).timeout(_span(timeouts.whole))
            # Bytes cost a third of a stream. A large body goes as a stream all the same: when the connection breaks,
            # it is good to know that the last chunk was not yet handed over.
            whole = body.in_one_piece()
            request = request.body_stream(_Chunks(body)) if whole is None else request.body_bytes(whole)
            return await _exchange(request.build_streamed())
        except (FaceError, BadResponse):
            raise
        except asyncio.CancelledError:
            # The library raises one of its own making, which no scope of anyio would take for its own and stop: under
            # a scope that is cancelled, this raises the scope's.
            await checkpoint_if_cancelled()
            raise
        except PyreqwestError as error:
            reason, unsent = _explain(error)
        finally:
            self._busy -= 1
        # Raised out here, so that no foreign exception hangs on it as its context.
        raise TransportFailure(reason, unsent=unsent)

    async def aclose(self) -> None:
        self._closed = True
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()  # calls under way fail; connections are closed with the last reference

    @property
    def connections(self) -> int:
        """How many are in use; of idle ones the library does not tell."""
        return self._busy

    def _open(self, step: float) -> Client:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("http='reqwest' runs on asyncio only; on trio use http='httpx'") from None
        _prepare_process()
        seconds = _span(step)
        builder = ClientBuilder().http1_only().no_proxy().follow_redirects(False).referer(False)
        for switch in (builder.gzip, builder.brotli, builder.zstd, builder.deflate):
            builder = switch(False)
        # Both begin together: connecting must be over first, since only its own error says that nothing was sent.
        builder = builder.connect_timeout(seconds).read_timeout(seconds + _AFTER_CONNECTING)
        client = builder.pool_idle_timeout(timedelta(seconds=KEEPALIVE_SECONDS)).build()
        self._clients[step] = client
        return client


class _Chunks:
    """A body in the form that the library takes."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> _Chunk:
        return _Chunk(self._body)


class _Chunk(Coroutine[object, object, bytes]):
    """The next chunk of a body, read when it is first waited for.

    When an answer comes early, the library lets go of a chunk that it has asked for and not waited for. A coroutine of
    Python's own warns of that end; this one does not.
    """

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self._reading: Coroutine[object, object, bytes] | None = None

    def send(self, value: object, /) -> object:
        return self._begun().send(value)

    def throw(self, *error: Any) -> object:
        return self._begun().throw(*error)

    def close(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self._begun().__await__()

    def _begun(self) -> Coroutine[object, object, bytes]:
        if self._reading is None:
            self._reading = self._body.__anext__()
        return self._reading


def _span(seconds: float) -> timedelta:
    """Return a span of time, of a day at most: the library knows none without end."""
    return timedelta(seconds=min(seconds, 86_400.0))


async def _exchange(request: StreamRequest) -> Answer:
    """Send a request and read its answer; what ``async with`` does, but only where there is something to close.

    Leaving its block lets the library's thread have the GIL once more, and a whole answer has left nothing to close.
    """
    response = await request.__aenter__()
    try:
        return await _receive(response)
    except BaseException as error:
        await request.__aexit__(type(error), error, error.__traceback__)
        raise


async def _receive(response: Response) -> Answer:
    status = response.status
    encoding = response.get_header("content-encoding") or "identity"
    BadResponse.check_encoding(encoding, status)
    length = response.get_header("content-length")
    if length is not None and len(length) <= len(str(MAX_ANSWER_BYTES)):
        BadResponse.check_size(int(length), status)
        content = await response.bytes()
        return Answer(status, cast("Mapping[str, str]", response.headers), bytes(content))
    pieces: list[bytes] = []
    size = 0
    while (piece := await response.body_reader.read(_READ_BYTES)) is not None:
        size += len(piece)
        BadResponse.check_size(size, status)
        pieces.append(bytes(piece))
    return Answer(status, cast("Mapping[str, str]", response.headers), b"".join(pieces))


def _explain(error: PyreqwestError) -> tuple[str, bool]:
    """Return what went wrong, in words that cannot quote a request, and whether it was never sent.

    The class does not tell: a connection that broke after the request was sent is called a ConnectError too.
    """
    details = error.details if isinstance(error, DetailedPyreqwestError) else None
    causes = [cause["message"] for cause in (details and details["causes"]) or ()]
    unsent = "client error (Connect)" in causes
    if isinstance(error, RequestTimeoutError):
        return ("connecting took too long" if unsent else "the server took too long"), unsent
    if unsent:
        return f"cannot connect: {causes[-1]}", unsent
    return f"the server broke HTTP or the connection broke ({type(error).__name__})", unsent
