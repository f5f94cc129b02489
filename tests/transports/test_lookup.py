"""Names of hosts: which of their addresses is connected to, and what is said when none can be."""

from __future__ import annotations

import socket

import anyio
import pytest
from timing import PATIENCE

from face_async import RetryPolicy, TransportError
from face_async._transports.names import SocketAddress, addresses_of, first_connected
from face_async.server import serve_in_background
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio

ADDRESSES = [SocketAddress(socket.AF_INET, (f"192.0.2.{number}", 80)) for number in range(3)]


@pytest.fixture
def look_up(monkeypatch):
    """Make a name lead to addresses, in the system's order."""
    real = socket.getaddrinfo

    def lead(name, *addresses):
        def getaddrinfo(host, port, *args, **options):
            if host != name:
                return real(host, port, *args, **options)
            return [info for address in addresses for info in real(address, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return lead


async def test_both_families_are_tried_by_turns(look_up):
    """So that a network on which one of them leads nowhere costs one pause."""
    look_up("face.example", "2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::3")
    found = [address.host for address in await addresses_of("face.example", 80)]
    assert found == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]


def test_an_address_of_one_link_keeps_its_scope():
    assert SocketAddress(socket.AF_INET6, ("fe80::1", 80, 0, 3)).host == "fe80::1%3"
    assert SocketAddress(socket.AF_INET6, ("2001:db8::1", 80, 0, 0)).host == "2001:db8::1"


class Connections:
    """What connecting to each address does: it takes until an event, fails, or waits for ever."""

    def __init__(self, *outcomes, all_tried=None):
        self.all_tried = all_tried
        self.outcomes = dict(zip(ADDRESSES, outcomes, strict=False))
        self.tried, self.discarded = [], []

    async def connect(self, address):
        self.tried.append(address)
        outcome = self.outcomes[address]
        if self.all_tried and len(self.tried) == len(self.outcomes):
            self.all_tried.set()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            with anyio.CancelScope(shield=True):  # as a connection that is made just when another one is
                await outcome.wait()
            return address
        await anyio.sleep(PATIENCE)
        return None

    async def first(self):
        with anyio.fail_after(PATIENCE):
            return await first_connected(ADDRESSES[: len(self.outcomes)], self.connect, self.discarded.append)


def ready():
    event = anyio.Event()
    event.set()
    return event


async def test_the_first_address_that_answers_is_taken_and_no_other_is_tried():
    connections = Connections(ready(), ready())
    assert await connections.first() == ADDRESSES[0]
    assert connections.tried == ADDRESSES[:1]


@pytest.mark.parametrize("first", [OSError("no route"), None], ids=["refuses", "is silent"])
async def test_an_address_that_does_not_answer_leads_to_the_next_one(first):
    assert await Connections(first, ready()).first() == ADDRESSES[1]


async def test_if_none_can_be_connected_to_the_first_one_s_error_is_told():
    with pytest.raises(OSError, match="first"):
        await Connections(OSError("first"), OSError("second")).first()


async def test_a_connection_that_comes_too_late_is_closed():
    both_tried = anyio.Event()
    connections = Connections(both_tried, both_tried, all_tried=both_tried)
    taken = await connections.first()
    assert {taken, *connections.discarded} == set(ADDRESSES[:2])
    assert len(connections.discarded) == 1


async def test_a_caller_who_goes_leaves_no_connection():
    made = anyio.Event()
    connections = Connections(made)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connections.first)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        made.set()
    assert connections.discarded == ADDRESSES[:1]


@pytest.fixture(params=["httpx", "asyncio"])
def http(request, anyio_backend):
    return request.param if anyio_backend == "asyncio" else "httpx"


async def test_a_session_goes_on_to_the_address_that_answers(look_up, http):
    look_up("face.example", "::1", "127.0.0.1")
    with FaceServer() as server:
        async with serve_in_background(server.app) as running:
            url = f"http://face.example:{running.port}"
            async with server.session(base_url=url, allow_insecure=True, http=http) as session:
                assert await session.get_group_ids() == []


@pytest.mark.parametrize("name", ["face.invalid", "a" * 64 + ".example"])
async def test_a_name_that_leads_nowhere_is_told_before_anything_is_sent(http, name):
    with FaceServer() as server:
        url = f"https://{name}"
        async with server.session(base_url=url, http=http, retry=RetryPolicy(max_attempts=1)) as session:
            with pytest.raises(TransportError, match="cannot connect") as told:
                await session.new_person("ada", ["staff"])
    assert not told.value.maybe_applied
