"""The seam to HTTP: plain data in, plain data out. Of the client's rooms only this one knows HTTP libraries.

Below the seam nothing knows faces, above it nothing knows HTTP libraries. A transport sends one request and returns
its complete answer, or raises one of two exceptions; it never retries, queues or redirects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from attrs import field, frozen

from face_async.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""The largest answer that is read. The longest good one, 10,000 ids of 128 bytes, has 1.4 MB, and 3.9 MB if all its
characters are escaped. While it is read it is there twice, in pieces and whole."""

KEEPALIVE_SECONDS = 30.0
"""How long an idle connection is kept."""


class Reason(StrEnum):
    """Why no complete answer came back, in words that cannot quote a request."""

    CONNECT_TIMEOUT = "connecting took too long"
    TIMEOUT = "the server took too long"
    DEADLINE = "no answer in time"
    BROKEN_HTTP = "the server broke HTTP or closed the connection early"
    BROKEN_CONNECTION = "the connection broke"
    CLOSED = "the session was closed"
    CLOSED_MEANWHILE = "the session was closed meanwhile"


class TransportFailure(Exception):  # noqa: N818 - it becomes a TransportError, which knows the endpoint
    """No complete answer came back.

    Attributes:
        unsent: True when there was not even a connection to send the request over.
    """

    def __init__(self, reason: str, *, unsent: bool) -> None:
        super().__init__(reason)
        self.unsent = unsent


class BadResponse(Exception):  # noqa: N818 - it becomes a ResponseError, which knows the endpoint
    """An answer came that must not be read on: too large, or encoded although that was not asked for."""

    def __init__(self, problem: str, status: int) -> None:
        super().__init__(problem)
        self.status = status

    @classmethod
    def check_encoding(cls, encoding: str, status: int) -> None:
        """Raise this for any other encoding than the one that was asked for."""
        if encoding != "identity":
            raise cls(f"it is encoded as {quoted(encoding[:20])}, although that was not asked for", status)

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
        headers: The headers, found by their names in lower case.
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


class RequestBody(Protocol):
    """A body that is sent once: an asynchronous iterator of its chunks."""

    length: int
    """The bytes of the whole body."""

    in_memory: bool
    """Whether its next chunk is always there at once."""

    def in_one_go(self) -> Sequence[bytes] | None:
        """Hand over all segments of a small body that is in memory; return None, and hand over nothing, of others."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> bytes: ...


class Transport(ABC):
    """Sends requests over connections that it keeps."""

    @abstractmethod
    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:
        """Send one POST request and return its answer.

        Args:
            url: The whole URL.
            headers: The headers, Host and Content-Length among them.
            body: The body.
            timeouts: How long it may take.

        Raises:
            TransportFailure: No complete answer came back.
            BadResponse: The answer must not be read on.
            FaceError: Whatever reading the body raised.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections that this transport has opened."""

    @property
    @abstractmethod
    def connections(self) -> int:
        """How many connections are open, as far as it is known."""


def cut_short(*, closed: bool) -> TransportFailure:
    """Return the failure of a request that was given up: its time was over, or the session was closed."""
    return TransportFailure(Reason.CLOSED_MEANWHILE if closed else Reason.DEADLINE, unsent=False)
