"""The seam to HTTP: plain data in, plain data out. Of the session's rooms only those behind it know an HTTP library.

Below the seam nothing knows faces, above it nothing knows HTTP libraries. A transport sends one request and returns
its complete answer, or raises one of two exceptions; it never retries, queues or redirects.
"""

from __future__ import annotations

import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, cast

import anyio
import httpx
from attrs import field, frozen

from face_async.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from face_async._multipart import Attempt

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""The largest answer that is read. The longest good one, 10,000 ids of 128 bytes, has 1.4 MB, and 3.9 MB if all its
characters are escaped. While it is read it is there twice, in pieces and whole."""

_NOT_IN_TIME = "no answer in time"

KEEPALIVE_SECONDS = 30.0
"""How long an idle connection is kept."""


class TransportFailure(Exception):  # noqa: N818 - it becomes a TransportError, which knows the endpoint
    """No complete answer came back.

    Attributes:
        unsent: True when there was not even a connection to send the request over.
    """

    def __init__(self, reason: str, *, unsent: bool) -> None:
        super().__init__(reason)
        self.unsent = unsent


class AnswerRefused(Exception):  # noqa: N818 - it becomes a ResponseError, which knows the endpoint
    """An answer came that must not be read on: too large, or encoded although that was not asked for."""

    def __init__(self, problem: str, status: int) -> None:
        super().__init__(problem)
        self.status = status

    @classmethod
    def check_encoding(cls, encoding: str, status: int) -> None:
        """Raise this for any other encoding than the one that was asked for."""
        if encoding != "identity":
            raise cls(f"it is encoded as {encoding[:20]!r}, although that was not asked for", status)

    @classmethod
    def check_size(cls, size: int, status: int) -> None:
        """Raise this for more bytes than are read of an answer."""
        if size > MAX_ANSWER_BYTES:
            raise cls(f"it is larger than {MAX_ANSWER_BYTES:,} bytes", status)


@frozen
class Answer:
    """A complete answer, undecoded.

    Attributes:
        status: The HTTP status.
        headers: The headers; their names in any case.
        content: The body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


class Timeouts(NamedTuple):
    """How long one attempt may take.

    Attributes:
        step: Seconds for connecting, for each write and for each read.
        whole: Seconds for everything together, until the answer is complete.
    """

    step: float
    whole: float


class Transport(ABC):
    """Sends requests over connections that it keeps."""

    @abstractmethod
    async def send(self, url: str, headers: Mapping[str, str], body: Attempt, timeouts: Timeouts) -> Answer:
        """Send one POST request and return its answer.

        Args:
            url: The whole URL.
            headers: The headers, Host and Content-Length among them.
            body: The body.
            timeouts: How long it may take.

        Raises:
            TransportFailure: No complete answer came back.
            AnswerRefused: The answer is not one to read.
            FaceError: Whatever reading the body raised.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections that this transport has opened."""

    @property
    @abstractmethod
    def connections(self) -> int:
        """How many connections are open, as far as it is known."""


class HttpxTransport(Transport):
    """Any httpx transport that somebody else has opened, and will close."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._busy: set[anyio.CancelScope] = set()
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: Attempt, timeouts: Timeouts) -> Answer:
        with anyio.move_on_after(timeouts.whole) as scope:
            self._busy.add(scope)
            try:
                return await _exchange(self._inner, url, headers, body, timeouts.step)
            finally:
                self._busy.discard(scope)
        raise _cut_short(closed=self._closed)

    async def aclose(self) -> None:
        """End the calls under way; the transport itself is closed by whoever opened it."""
        self._closed = True
        for scope in self._busy:
            scope.cancel()

    @property
    def connections(self) -> int:
        return 0


class HttpxLanes(Transport):
    """A stack of httpx transports of one connection each, the last used on top.

    httpx's own pool walks all its connections for every request and loses places when requests are cancelled while it
    queues. A lane never queues: it is handed out and taken back in constant time, and one whose request failed or was
    cancelled is closed and forgotten in the same step. So is the one at the bottom when it has been idle for too long:
    of those that fewer calls no longer need, each call ends one. The session's throttle bounds their number.
    """

    def __init__(self) -> None:
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()  # each since when
        self._busy: dict[httpx.AsyncHTTPTransport, anyio.CancelScope] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: Attempt, timeouts: Timeouts) -> Answer:
        if self._closed:
            raise TransportFailure("the session was closed", unsent=True)
        lane = self._idle.pop()[1] if self._idle else self._open(secure=url.startswith("https:"))
        reusable = False
        with anyio.move_on_after(timeouts.whole) as scope:
            self._busy[lane] = scope
            try:
                answer = await _exchange(lane, url, headers, body, timeouts.step)
                reusable = _is_clean(lane) and not self._closed
            finally:
                del self._busy[lane]
                if reusable:
                    await self._take_back(lane)
                else:
                    await _close(lane)
            return answer
        raise _cut_short(closed=self._closed)

    async def aclose(self) -> None:
        self._closed = True
        for scope in self._busy.values():
            scope.cancel()  # whoever is busy on a lane closes it, even one that is only connecting
        while self._idle:
            await _close(self._idle.pop()[1])

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._busy)

    async def _take_back(self, lane: httpx.AsyncHTTPTransport) -> None:
        now = time.monotonic()
        self._idle.append((now, lane))
        if len(self._idle) > 1 and self._idle[0][0] < now - KEEPALIVE_SECONDS:
            await _close(self._idle.popleft()[1])

    def _open(self, *, secure: bool) -> httpx.AsyncHTTPTransport:
        if self._tls is None:
            # Loading certificates takes milliseconds: once for all lanes, and not at all for plain http.
            self._tls = trusted_authorities() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.AsyncHTTPTransport(
            verify=self._tls,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
        )


def trusted_authorities() -> ssl.SSLContext:
    """Return what decides whether a server's certificate is good."""
    return httpx.create_ssl_context(trust_env=False)


def _cut_short(*, closed: bool) -> TransportFailure:
    return TransportFailure("the session was closed meanwhile" if closed else _NOT_IN_TIME, unsent=False)


async def _close(lane: httpx.AsyncHTTPTransport) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
        await lane.aclose()


def _is_clean(lane: httpx.AsyncHTTPTransport) -> bool:
    """Return whether a lane's connection is open, and nothing has come on it after the answer.

    httpcore would take what has come, say a second answer, for the answer to the next request. It has no public name
    for that; should these ones change, lanes are not reused, and the tests of keep-alive say so.
    """
    try:
        (connection,) = lane._pool.connections  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return not attrgetter("_connection._h11_state.trailing_data")(connection)[0]
    except (AttributeError, ValueError):
        return False


_url = lru_cache(maxsize=256)(httpx.URL)  # parsing one costs more than signing the request


def host_of(base_url: str) -> str:
    """Return the Host header for a URL, in ASCII.

    Raises:
        ValueError: It is no URL that can be called.
    """
    try:
        return httpx.URL(base_url).netloc.decode("ascii")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"base_url cannot be called: {error}") from None


class _Stream(httpx.AsyncByteStream):
    """A body in the form that httpx takes."""

    def __init__(self, body: Attempt) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)


async def _exchange(
    transport: httpx.AsyncBaseTransport, url: str, headers: Mapping[str, str], body: Attempt, timeout: float
) -> Answer:
    steps = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    request = httpx.Request("POST", _url(url), headers=headers, stream=_Stream(body), extensions={"timeout": steps})
    try:
        response = await transport.handle_async_request(request)
        try:
            return await _read(response)
        finally:
            await response.aclose()
    except (FaceError, AnswerRefused):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a transport raises must leave as a typed error
        # Only these names can be trusted: a write error may come to light as a read error, and the other way round.
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        reason = _reason(error)
    # Raised out here, so that no foreign exception, which may quote a header, hangs on it as its context.
    raise TransportFailure(reason, unsent=unsent)


async def _read(response: httpx.Response) -> Answer:
    AnswerRefused.check_encoding(response.headers.get("content-encoding", "identity"), response.status_code)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in cast("httpx.AsyncByteStream", response.stream):
            size += len(piece)
            if size <= MAX_ANSWER_BYTES:
                pieces.append(piece)
            else:
                # Read on after closing: that ends the generators inside httpcore by an error. Leaving this loop would
                # leave them to the garbage collector, against which trio warns.
                await response.aclose()
    except httpx.HTTPError:
        if size <= MAX_ANSWER_BYTES:
            raise
    AnswerRefused.check_size(size, response.status_code)
    return Answer(response.status_code, response.headers, b"".join(pieces))


def _reason(error: Exception) -> str:
    """Return what went wrong, in words that cannot quote a request."""
    match error:
        case httpx.ConnectTimeout():
            return "connecting took too long"
        case httpx.TimeoutException():
            return "the server took too long"
        case httpx.ConnectError():
            return f"cannot connect: {_innermost(error)}"
        case httpx.RemoteProtocolError():
            return "the server broke HTTP or closed the connection early"
        case httpx.NetworkError():
            return "the connection broke"
        case _:
            return f"the request failed ({type(error).__name__})"


def _innermost(error: BaseException) -> str:
    """Return the first words in a chain of errors: trio's own have none."""
    while not str(error) and (cause := error.__cause__ or error.__context__):
        error = cause
    return str(error) or type(error).__name__
