"""The seam to HTTP libraries, and the transports behind it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from face_async._transports.base import Answer, Transport
from face_async._transports.target import Verify, context_of, host_of
from face_async.errors import quoted

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["Answer", "Http", "Transport", "Verify", "context_of", "host_of", "open_transport"]

Http: TypeAlias = Literal["httpx", "asyncio"]
"""What a session may stand on: httpx, or connections of its own over asyncio."""


def open_transport(http: str, given: httpx.AsyncBaseTransport | None, tls: ssl.SSLContext | None = None) -> Transport:
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
    if http == "httpx":
        from face_async._transports.lanes import HttpxLanes  # noqa: PLC0415

        return HttpxLanes(tls)
    if http == "asyncio":
        from face_async._transports.pool import AsyncioPool  # noqa: PLC0415

        return AsyncioPool(tls)
    raise ValueError(f"http must be 'httpx' or 'asyncio', not {quoted(http)}")


@cache
def _keep_freed_memory() -> None:
    """Free a block of 2 MB: from then on, glibc keeps the memory of small bodies for the next ones.

    Else it returns it to the system and takes it back page by page, which is a third of what an upload costs.
    """
    bytes(2 * 1024 * 1024)
