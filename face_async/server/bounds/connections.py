"""Bounds of connections: how many there are, which one makes room for a new one, and for how long one may wait."""

from __future__ import annotations

import asyncio
import enum
import importlib
import sys
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen
from attrs.validators import ge, gt, optional

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_CONNECTIONS = 4_096

_SWEEP_SECONDS = 1.0
_LEAVING_PART = 8  # which part of the most connections may, beyond them, be told that there is no room


def most_connections() -> int:
    """Return how many connections a process should have: half as many as files that it may open, at most 4,096."""
    soft, _ = _file_limits()
    return min(_MOST_CONNECTIONS, max(16, soft // 2))


def raise_file_limit() -> None:
    """Let this process open so many files that :func:`most_connections` has its maximum, as far as it is allowed to."""
    soft, hard = _file_limits()
    if soft < min(hard, 2 * _MOST_CONNECTIONS):
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * _MOST_CONNECTIONS), hard))


def _file_limits() -> tuple[int, int]:
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows has no such limits
        return 2 * _MOST_CONNECTIONS, 2 * _MOST_CONNECTIONS
    soft, hard = (
        sys.maxsize if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard


@frozen
class ConnectionLimits:
    """What the connections to one server may take.

    When a further one would be too many, the one makes room whose request has been unfinished for the longest time,
    else the one that has been idle the longest; while all others are being answered, the new one gets code 15. With a
    certificate, a connection counts from before its TLS handshake on, as one whose request is unfinished.

    Attributes:
        max_connections: Connections open at once, 1 or more; None: :func:`most_connections`.
        max_per_address: The same from one IP address; None for no bound of its own, as a proxy is one address.
        header_seconds: How long the headers of a request may take, and the TLS handshake before the first one.
        body_seconds: How long a body may take however slow it is, and for how long it may then be slow.
        min_body_rate: Bytes of a body that must come in a second, on average over ``body_seconds``.
    """

    max_connections: int | None = field(default=None, validator=optional(ge(1)))
    max_per_address: int | None = field(default=None, validator=optional(ge(1)))
    header_seconds: float = field(default=30.0, validator=gt(0))
    body_seconds: float = field(default=10.0, validator=gt(0))
    min_body_rate: float = field(default=1_000.0, validator=ge(0))


class ConnectionPhase(enum.Enum):
    """What a connection waits for."""

    HEAD = "the first request, or the rest of a request's head"
    BODY = "the rest of a request's body"
    ANSWER = "the answer to a request that is complete"
    REFUSED = "the rest of a request that is answered already"
    IDLE = "another request"
    CLOSING = "the client to close it"


_UNFINISHED = {ConnectionPhase.HEAD, ConnectionPhase.BODY, ConnectionPhase.REFUSED, ConnectionPhase.CLOSING}


class Bounded(Protocol):
    """A connection that counts."""

    @property
    def address(self) -> str:
        """The IP address at the other end."""
        ...

    def abort(self) -> None:
        """Break the connection."""

    def check_pace(self, now: float) -> None:
        """Give up what is too slow; ``now`` is the event loop's time."""


class Connections:
    """The connections of one server."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._most = limits.max_connections or most_connections()
        self._all: set[Bounded] = set()
        # Both in the order in which they came to be so.
        self._unfinished: dict[Bounded, None] = {}
        self._idle: dict[Bounded, None] = {}
        self._leaving: dict[Bounded, None] = {}
        self._sweeping = False

    def admit(self, new: Bounded) -> bool:
        """Add a connection if there is room for it, or if another one can make room."""
        limits, address = self.limits, new.address
        while len(self._all) >= self._most:
            if not self._make_room(lambda _: True):
                return False
        while limits.max_per_address and sum(each.address == address for each in self._all) >= limits.max_per_address:
            if not self._make_room(lambda each: each.address == address):
                return False
        self._all.add(new)
        return True

    def turn_away(self, connection: Bounded) -> None:
        """Keep a connection that was not admitted until it is told so; beyond a bound the oldest such one is broken."""
        self._leaving[connection] = None
        if len(self._leaving) > max(1, self._most // _LEAVING_PART):
            oldest = next(iter(self._leaving))
            self.remove(oldest)
            oldest.abort()

    def _make_room(self, may_go: Callable[[Bounded], bool]) -> bool:
        for group in (self._unfinished, self._idle):
            for each in group:
                if may_go(each):
                    self.remove(each)
                    each.abort()
                    return True
        return False

    def remove(self, connection: Bounded) -> None:
        """Forget a connection."""
        self._all.discard(connection)
        self._leaving.pop(connection, None)
        self._unfinished.pop(connection, None)
        self._idle.pop(connection, None)

    def note(self, connection: Bounded, phase: ConnectionPhase) -> None:
        """Note what a connection waits for from now on."""
        if connection not in self._all:
            return
        if phase in _UNFINISHED:
            self._unfinished.setdefault(connection)
        else:
            self._unfinished.pop(connection, None)
        if phase is ConnectionPhase.IDLE:
            self._idle[connection] = None
        else:
            self._idle.pop(connection, None)
        if self._unfinished and not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def abort(self) -> None:
        """Break all connections."""
        for connection in [*self._all, *self._leaving]:
            connection.abort()

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._unfinished):
            connection.check_pace(now)
        self._sweeping = bool(self._unfinished)
        if self._sweeping:
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
