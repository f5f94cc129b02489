"""What a server can do wrong: behaviors for the raw server, and one table that says what each means to a client.

A fault's phase is the question that decides everything: can the service have executed the request?

==  ========================================================================================================
N   it cannot: trying again is always safe
A   it may have, and what it did is its secret: a call that changes nothing is tried again, an effect settled
==  ========================================================================================================
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from doubles import envelope
from raw_server import (
    Behavior,
    answer,
    close_after_request,
    http,
    never_read,
    reset_after_request,
    reset_mid_body,
    say,
    silence,
)

from face_async import AuthError, RateLimitedError, ResponseError, TransportError, UnavailableError
from face_async._transports.base import MAX_ANSWER_BYTES

HTML = b"<html>Bad day</html>"
LARGE = b"\xff\xd8\xff" + bytes(1_400_000)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SET = envelope({"person_id": "p"})
_TOO_LARGE = f"larger than {MAX_ANSWER_BYTES:,}"


# Behaviors


def dripping(start, piece, pause=0.02):
    """Return a behavior that answers a little at a time, without end."""

    def behave(connection):
        connection.read_request()
        connection.send(start)
        while not connection.server.over.wait(pause):
            connection.send(piece)

    return behave


def endless(start, piece):
    """Return a behavior that answers without end."""

    def behave(connection):
        connection.read_request()
        connection.send(start)
        while True:
            connection.send(piece)

    return behave


def refuse_early(packet: bytes) -> Behavior:
    """Return a behavior that answers when only the head was read, and reads the rest nevertheless."""

    def behave(connection):
        head = connection.read_head().lower()
        connection.send(packet)
        connection.read(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))

    return behave


@cache
def bomb():
    """Return 64 MiB in a few hundred bytes: gzip in gzip."""
    return gzip.compress(gzip.compress(bytes(64 * 1024 * 1024), 1))


DRIPS = {
    "header": dripping(b"HTTP/1.1 200 OK\r\n", b"X"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "1xx": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(http(b"", 200, ("Content-Length", "1000")), b" "),
    "chunks": dripping(CHUNKED, b"1\r\n \r\n"),
}
BROKEN = {
    "truncated body": say(http(SET, 200, ("Content-Length", "1000")), then_close=True),
    "truncated chunks": say(CHUNKED + b"ff\r\n{", then_close=True),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1_000),
    "one endless header": endless(b"HTTP/1.1 200 OK\r\nX-Header: ", b"v" * 10_000),
    "no HTTP": say(b"SSH-2.0-OpenSSH_9.6\r\n" * 10, then_close=True),
    "two lengths": say(http(SET, 200, ("Content-Length", "1"), ("Content-Length", "2"))),
}
REFUSED = {
    "oversized": (endless(http(b"", 200, ("Content-Length", "100000000")), bytes(100_000)), _TOO_LARGE),
    "endless chunks": (endless(CHUNKED, b"10000\r\n" + bytes(65_536) + b"\r\n"), _TOO_LARGE),
    "gzip": (answer(b"\x1f\x8b" + bytes(100), 200, ("Content-Encoding", "gzip")), "encoded as 'gzip'"),
    "deflate, gzip": (answer(b"", 200, ("Content-Encoding", "deflate, gzip")), "encoded as 'deflate, gzip'"),
    "html": (answer(HTML, 200, ("Content-Type", "text/html")), "not JSON"),
    "empty": (answer(b""), "not JSON"),
    "not UTF-8": (answer(b'{"code": 0, "message": "\xff"}'), "not UTF-8"),
    "excess": (say(http(SET[:-1], 200) + SET[-1:]), "not JSON"),
}

# The table


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: What happens.
        behavior: Makes what the server does instead of answering.
        error: What a client raises for which this happens to every attempt.
        phase: Whether the request may have been executed.
        upload_phase: The same for large bodies, of which the last chunk is not handed over.
        whole: How many whole requests the server has seen then.
        large: Whether pictures must be large to show it.
        costly: Whether it takes so long to say or to understand that a few verbs must do.
    """

    name: str
    behavior: Callable[[], Behavior]
    error: type[Exception]
    phase: Literal["N", "A"] = "A"
    upload_phase: Literal["N", "A"] | None = None
    whole: int = 1
    large: bool = False
    costly: bool = False

    def __str__(self) -> str:
        """Name the fault in a test's id."""
        return self.name


def said(name: str, error: type[Exception], content: bytes, status: int = 200, *headers: tuple[str, str]) -> Fault:
    """Return the row of an answer that leaves everything open."""
    return Fault(name, lambda: answer(content, status, *headers), error)


def certain(name: str, error: type[Exception], content: bytes, status: int = 200) -> Fault:
    """Return the row of an answer that says by itself that nothing was done."""
    return Fault(name, lambda: answer(content, status), error, phase="N")


FAULTS = (
    # The connection
    Fault("RST mid-body", lambda: reset_mid_body(after=1), TransportError, upload_phase="N", whole=0, large=True),
    Fault("RST after the last chunk", reset_after_request, TransportError),
    Fault("FIN after the last chunk", close_after_request, TransportError),
    # The frame
    *(Fault(name, lambda name=name: BROKEN[name], TransportError) for name in BROKEN),
    said("200 KB of headers", TransportError, SET, 200, *[("X", "v" * 50)] * 4_000),
    Fault("403 mid-body", lambda: refuse_early(http(HTML, 403)), ResponseError, phase="N", whole=0, large=True),
    *(
        Fault(name, lambda name=name: REFUSED[name][0], ResponseError, costly=REFUSED[name][1] == _TOO_LARGE)
        for name in REFUSED
    ),
    Fault("gzip bomb", lambda: answer(bomb(), 200, ("Content-Encoding", "gzip, gzip")), ResponseError),
    # The text
    said("byte order mark", ResponseError, b"\xef\xbb\xbf" + SET),
    said("NaN", ResponseError, b'{"code":0,"data":{"confidence":NaN}}'),
    said("a key twice", ResponseError, b'{"code":0,"data":{},"data":{}}'),
    Fault("100,000 deep", lambda: answer(b"[" * 100_000), ResponseError, costly=True),
    said("50,000 deep", ResponseError, b'{"data":' + b"[" * 50_000),
    said("5,000 digits", ResponseError, b'{"code":0,"data":' + b"1" * 5_000 + b"}"),
    said("wrong types", ResponseError, b'{"code":0,"data":["person0"]}'),
    said("missing data", ResponseError, b'{"code":0,"message":"OK"}'),
    said("missing code", ResponseError, b'{"data":{}}'),
    Fault("100,000 values", lambda: answer(b"[" + b"{}," * 100_000 + b"{}]"), ResponseError, costly=True),
    # HTTP statuses
    *(said(f"HTTP {status}", ResponseError, HTML, status) for status in (300, 500, 502, 503, 504)),
    *(certain(f"HTTP {status}", ResponseError, HTML, status) for status in (401, 403, 408, 429)),
    # Codes
    *(said(f"code {code}", UnavailableError, envelope(code=code)) for code in (213, -1200)),
    said("code 13", AuthError, envelope(code=13)),
    *(certain(f"code {code}", UnavailableError, envelope(code=code)) for code in (107, 108)),
    certain("code 15", RateLimitedError, envelope(code=15)),
)
"""Faults that show at once."""

STALLS = (
    Fault("never reads", never_read, TransportError, upload_phase="N", whole=0, large=True),
    Fault("no answer", silence, TransportError),
)
"""Faults that show when ``timeout`` is over."""

FLOOD = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
"""With :data:`DRIPS`, what only the deadline ends: there is always a byte more."""
