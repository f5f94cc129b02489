"""How answers and failures of httpx and httpx2, and of what is below them, leave as those of the seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from face_async._transports.base import MAX_ANSWER_BYTES, Answer, BadResponse, Reason
from face_async._transports.libraries import MODULES
from face_async.errors import innermost

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping

_UNSENT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}
_REASONS = {
    "ConnectTimeout": Reason.CONNECT_TIMEOUT,
    "TimeoutException": Reason.TIMEOUT,
    "RemoteProtocolError": Reason.BROKEN_HTTP,
    "NetworkError": Reason.BROKEN_CONNECTION,
}
"""By the names of exceptions, which are the same in all of the libraries."""

_OF_PRIVATE_AUTHORITIES = (
    "; if a private authority has signed the certificate, name the file with its own: "
    "verify=, FACE_ASYNC_CA_FILE, SSL_CERT_FILE or --ca-file"
)


def merged(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lower case; values of one name in their order, as one list."""
    values: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


async def read_answer(
    status: int, headers: Mapping[str, str], stream: AsyncIterable[bytes], aclose: Callable[[], Awaitable[None]]
) -> Answer:
    """Read an answer to its end and close it."""
    try:
        BadResponse.check_encoding(headers.get("content-encoding", "identity"), status)
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in stream:
                size += len(piece)
                if size <= MAX_ANSWER_BYTES:
                    pieces.append(piece)
                else:
                    # Read on after closing: that ends the generators inside httpcore by an error. Leaving this loop
                    # would leave them to the garbage collector, against which trio warns.
                    await aclose()
        except Exception:
            if size <= MAX_ANSWER_BYTES:
                raise
        BadResponse.check_size(size, status)
        return Answer(status, headers, b"".join(pieces))
    finally:
        await aclose()


def explain(error: Exception) -> tuple[str, bool]:
    """Return what a library's exception says, in words that cannot quote a request, and whether nothing was sent."""
    names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in MODULES]
    # Only the names of connecting can be trusted: a write error may come to light as a read error, or the other way.
    unsent = not _UNSENT.isdisjoint(names)
    if "ConnectError" in names:
        reason = no_connection(error)
    else:
        said = (_REASONS[name] for name in names if name in _REASONS)
        reason = next(said, f"the request failed ({type(error).__name__})")
    return reason, unsent


def no_connection(error: BaseException) -> str:
    """Return why there is no connection, and what to do about an authority that is not known."""
    why = innermost(error)
    hint = _OF_PRIVATE_AUTHORITIES if "CERTIFICATE_VERIFY_FAILED" in why else ""
    return f"cannot connect: {why}{hint}"
