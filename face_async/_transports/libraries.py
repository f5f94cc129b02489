"""httpx and httpx2, its maintained fork: the same names with the same meaning, in modules of other names."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

if TYPE_CHECKING:
    import httpcore
    import httpx
    import httpx2

    AsyncTransport: TypeAlias = httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport
    """A transport of either library."""

HttpxName: TypeAlias = Literal["httpx", "httpx2"]

_CORES = {"httpx": "httpcore", "httpx2": "httpcore2"}
MODULES = frozenset({*_CORES, *_CORES.values()})
"""Both libraries, and the lower half of each."""


class Httpx(Protocol):
    """What is used of httpx, or of httpx2."""

    __name__: str
    AsyncByteStream: type[httpx.AsyncByteStream]
    AsyncHTTPTransport: type[httpx.AsyncHTTPTransport]
    Limits: type[httpx.Limits]
    Request: type[httpx.Request]
    URL: type[httpx.URL]


class Httpcore(Protocol):
    """What is used of httpcore, or of httpcore2."""

    __name__: str
    AsyncConnectionPool: type[httpcore.AsyncConnectionPool]
    AsyncHTTP11Connection: type[httpcore.AsyncHTTP11Connection]
    AsyncHTTPConnection: type[httpcore.AsyncHTTPConnection]
    ConnectError: type[Exception]
    ConnectTimeout: type[Exception]
    ReadError: type[Exception]
    ReadTimeout: type[Exception]
    Request: type[httpcore.Request]
    TrioBackend: type[httpcore.TrioBackend]
    URL: type[httpcore.URL]
    WriteError: type[Exception]
    WriteTimeout: type[Exception]


@cache
def httpx_named(name: HttpxName) -> Httpx:
    """Return the library of a name; only ``"httpx"`` is always installed."""
    return cast("Httpx", import_module(name))


@cache
def httpcore_of(name: HttpxName) -> Httpcore:
    """Return the lower half of a library.

    Raises:
        ImportError: It is that of httpx2, and its extra is not installed.
    """
    try:
        return cast("Httpcore", import_module(_CORES[name]))
    except ImportError:
        raise ImportError(
            f"http='{name}' needs the extra '{name}': pip install 'face_async[{name}]'", name="face_async"
        ) from None


def httpx_behind(transport: AsyncTransport) -> HttpxName:
    """Return the name of the library that a transport is of: httpx where it is derived from neither.

    Raises:
        TypeError: It is no asynchronous transport.
    """
    if not hasattr(transport, "handle_async_request"):
        raise TypeError(
            "transport must be an asynchronous transport of httpx or httpx2, such as httpx.AsyncHTTPTransport(), "
            f"not {type(transport).__name__}"
        )
    modules = {kind.__module__.partition(".")[0] for kind in type(transport).__mro__}
    return "httpx2" if "httpx2" in modules else "httpx"
