"""The seam to HTTP libraries, and the transports behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from face_async._transports.base import Answer, Transport
from face_async._transports.exchange import host_of
from face_async._transports.given import HttpxTransport
from face_async._transports.lanes import HttpxLanes

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Http", "Transport", "host_of", "open_transport"]

Http: TypeAlias = Literal["httpx", "reqwest"]
"""The HTTP libraries that a session may stand on."""


def open_transport(http: str, given: httpx.AsyncBaseTransport | None) -> Transport:
    """Return what a session sends with: the transport that it was given, or a new one over the library it names."""
    if given is not None:
        return HttpxTransport(given)
    if http == "httpx":
        return HttpxLanes()
    if http == "reqwest":
        from face_async._transports.reqwest import Reqwest  # noqa: PLC0415 - an extra, imported when it is asked for

        return Reqwest()
    raise ValueError(f"http must be 'httpx' or 'reqwest', not {http!r}")
