"""The seam to HTTP libraries, and the transports behind it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from face_async._transports.base import Answer, Transport
from face_async._transports.target import Verify, context_of, host_of
from face_async.errors import quoted

if TYPE_CHECKING:
    import ssl

    from face_async._transports.libraries import AsyncTransport

__all__ = ["Answer", "Http", "Transport", "Verify", "context_of", "host_of", "open_transport"]

Http: TypeAlias = Literal["httpx", "asyncio", "httpx2"]
"""What a session may stand on: httpx or its fork httpx2, or connections of its own over asyncio."""


def open_transport(http: Http, given: AsyncTransport | None, tls: ssl.SSLContext | None = None) -> Transport:
    """Return what a session sends with: the transport that it was given, or a new one over the library it names.

    Args:
        http: The library.
        given: A transport, which decides itself whether certificates are good.
        tls: What decides that otherwise; None is what does for all who name nothing else.
    """
    # Each is imported when it is asked for: httpx takes longer to import than the rest of this package.
    if given is not None:
        from face_async._transports.given import HttpxTransport  # noqa: PLC0415

        return HttpxTransport(given)
    _keep_freed_memory()
    if http == "asyncio":
        from face_async._transports.pool import AsyncioPool  # noqa: PLC0415

        return AsyncioPool(tls)
    if http not in {"httpx", "httpx2"}:
        raise ValueError(f"http must be 'httpx', 'asyncio' or 'httpx2', not {quoted(http)}")
    from face_async._transports.lanes import HttpxLanes  # noqa: PLC0415

    return HttpxLanes(http, tls)


@cache
def _keep_freed_memory() -> None:
    """Free a block of 2 MB: from then on, glibc keeps the memory of small bodies for the next ones.

    Else it returns it to the system and takes it back page by page, which is a third of what an upload costs.
    """
    bytes(2 * 1024 * 1024)
