"""One exchange over an httpx transport: whatever it raises leaves as one of the seam's two exceptions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

import httpx

from face_async._transports.base import MAX_ANSWER_BYTES, Answer, BadResponse, TransportFailure
from face_async.errors import FaceError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from face_async._transports.base import RequestBody


def trusted_authorities() -> ssl.SSLContext:
    """Return what decides whether a server's certificate is good."""
    return httpx.create_ssl_context(trust_env=False)


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


class _RequestStream(httpx.AsyncByteStream):
    """A body in the form that httpx takes."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)


async def exchange(
    transport: httpx.AsyncBaseTransport, url: str, headers: Mapping[str, str], body: RequestBody, timeout: float
) -> Answer:
    steps = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    request = httpx.Request(
        "POST", _url(url), headers=headers, stream=_RequestStream(body), extensions={"timeout": steps}
    )
    try:
        response = await transport.handle_async_request(request)
        try:
            return await _read_response(response)
        finally:
            await response.aclose()
    except (FaceError, BadResponse):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a transport raises must leave as a typed error
        # Only these names can be trusted: a write error may come to light as a read error, and the other way round.
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        reason = _reason_of(error)
    # Raised out here, so that no foreign exception, which may quote a header, hangs on it as its context.
    raise TransportFailure(reason, unsent=unsent)


async def _read_response(response: httpx.Response) -> Answer:
    BadResponse.check_encoding(response.headers.get("content-encoding", "identity"), response.status_code)
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
    BadResponse.check_size(size, response.status_code)
    return Answer(response.status_code, response.headers, b"".join(pieces))


def _reason_of(error: Exception) -> str:
    """Return what went wrong, in words that cannot quote a request."""
    match error:
        case httpx.ConnectTimeout():
            return "connecting took too long"
        case httpx.TimeoutException():
            return "the server took too long"
        case httpx.ConnectError():
            return f"cannot connect: {innermost(error)}"
        case httpx.RemoteProtocolError():
            return "the server broke HTTP or closed the connection early"
        case httpx.NetworkError():
            return "the connection broke"
        case _:
            return f"the request failed ({type(error).__name__})"


def innermost(error: BaseException) -> str:
    """Return the words of the error that others were raised from; of several, such as one an address, the first's."""
    while (cause := error.__cause__ or error.__context__) or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else cause  # type: ignore[assignment]
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
