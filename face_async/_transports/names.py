"""Names of hosts: looked up in threads of this room's own, and connected to by the first address that answers.

The look-ups of trio and asyncio take threads that the callers of a session may hold while they wait for its answer.
"""

from __future__ import annotations

import socket
from functools import partial
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")

_THREADS = 40
_STAGGER_SECONDS = 0.25  # RFC 8305, section 8

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("face_async.names")


@frozen
class SocketAddress:
    """An address that a socket can be connected to."""

    family: int
    value: tuple[Any, ...]  # as the family has it

    @property
    def host(self) -> str:
        """The IP address, with the scope of one that is good on one link only."""
        scope = self.value[3] if self.family == socket.AF_INET6 else 0
        return f"{self.value[0]}%{scope}" if scope and "%" not in self.value[0] else str(self.value[0])


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, which nobody has to look up."""
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


async def addresses_of(host: str, port: int) -> list[SocketAddress]:
    """Return the addresses of a host, at least one: in the system's order, but IPv6 and IPv4 by turns.

    Raises:
        OSError: It has none.
        UnicodeError: It cannot be looked up.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    infos = await anyio.to_thread.run_sync(look_up, limiter=limiter, abandon_on_cancel=True)
    found = [SocketAddress(int(info[0]), info[4]) for info in infos]
    preferred = [address for address in found if address.family == found[0].family]
    others = [address for address in found if address.family != found[0].family]
    return [address for address in chain(*zip_longest(preferred, others)) if address]


async def first_connected(
    addresses: Sequence[SocketAddress],
    connect: Callable[[SocketAddress], Awaitable[T]],
    discard: Callable[[T], object],
) -> T:
    """Connect to the first address that answers (RFC 8305).

    Each next one is tried when the one before has failed, or has not answered for a quarter of a second.

    Args:
        addresses: In the order in which they are tried, at least one.
        connect: Connects to one.
        discard: Closes a connection that is not needed.

    Raises:
        Exception: What the first address has failed with, when all have failed.
    """
    connected: list[T] = []
    errors: list[Exception] = []

    async def attempt(address: SocketAddress, ended: anyio.Event) -> None:
        try:
            connected.append(await connect(address))
        except Exception as error:  # noqa: BLE001 - raised below, unless another address answers
            errors.append(error)
            ended.set()
        else:
            tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                ended = anyio.Event()
                tasks.start_soon(attempt, address, ended)
                with anyio.move_on_after(_STAGGER_SECONDS):
                    await ended.wait()
    except BaseException:
        for one in connected:
            discard(one)
        raise
    for one in connected[1:]:
        discard(one)
    if not connected:
        raise errors[0]
    return connected[0]
