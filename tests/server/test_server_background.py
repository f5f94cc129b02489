"""The server on a socket: started, stopped, interrupted, killed."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import socket
import sys
import threading

import anyio
import httpx
import pytest
from serverkit import CREDENTIALS, Caller, ToyRecognizer, authorization, new_person, program
from timing import PATIENCE

from face_async.server import Store, create_app, processes, serve, serve_in_background

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(store):
    return create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer())


def accepted_at(port: int) -> list[socket.socket]:
    """Return this process's ends of the connections that a server in it has accepted."""
    mine = [thing for thing in gc.get_objects() if type(thing) is socket.socket and thing.fileno() >= 0]
    return [
        sock for sock in mine
        if sock.family == socket.AF_INET and sock.getsockname()[1] == port
        and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ]  # fmt: skip


async def test_answers_leave_at_once_on_asyncios_own_loop_too(app, monkeypatch):
    """Where uvloop is not installed, TCP_NODELAY is set on accepted connections nevertheless."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    async with (
        serve_in_background(app) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        await client.post("/face/getgroupids")
        options = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in accepted_at(server.port)]
    assert len(options) == 1
    assert all(options)


async def test_a_served_application_answers_over_sockets(app):
    """From the moment the block begins, at the address it yields."""
    async with (
        serve_in_background(app) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        assert server.base_url == f"http://127.0.0.1:{server.port}"
        caller = Caller(client)
        await caller.new_person("ada", image=b"person 1 shot 0")
        assert (await caller.ok("getgroupids"))["group_ids"] == ["staff"]
        response = await client.post("/face/getgroupids")
        assert "server" not in response.headers
        assert "date" in response.headers


async def test_nobody_listens_after_the_block(app):
    """And the thread is gone."""
    before = set(threading.enumerate())  # other tests' servers may still run
    async with serve_in_background(app) as server:
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))
    assert not [new for new in set(threading.enumerate()) - before if new.name == "face_async server"]


async def test_a_cancelled_block_stops_the_server(app):
    """Cancellation does not leave a thread behind."""
    with anyio.CancelScope() as scope:
        async with serve_in_background(app) as server:
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))


async def test_a_server_can_be_started_again(app):
    """The application outlives its server."""
    for _ in range(2):
        async with serve_in_background(app) as server, httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"{server.base_url}/face/getgroupids")).json()["code"] == 4


async def test_a_port_that_is_taken_is_an_error(app):
    """At once, to whoever asked."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        async with serve_in_background(app, port=other.getsockname()[1]):
            pass


async def test_ipv6_addresses_stand_in_brackets(app):
    """As URLs want them."""
    try:
        async with serve_in_background(app, host="::1") as server, httpx.AsyncClient(trust_env=False) as client:
            assert server.base_url == f"http://[::1]:{server.port}"
            assert (await client.post(f"{server.base_url}/face/getgroupids")).json()["code"] == 4
    except OSError:
        pytest.skip("no IPv6 here")


async def test_a_refused_upload_is_answered_although_it_was_not_read(app):
    """A client that sends all before it reads still learns the code, and may use its connection again."""
    async with (
        serve_in_background(app) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        headers = {"Content-Type": "application/json", "Authorization": authorization()}
        response = await client.post("/face/identify", content=b"x" * 4_000_000, headers=headers)
        assert response.json()["code"] == 23
        assert (await client.post("/face/getgroupids")).json()["code"] == 4


async def test_a_server_that_cannot_start_says_so(app, monkeypatch):
    """Instead of being waited for without end."""
    monkeypatch.setattr("uvicorn.Server.startup", lambda self, sockets=None: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        async with serve_in_background(app):
            pass


def test_a_closed_terminal_stops_no_server_that_was_told_to_ignore_it(app):
    """As by nohup."""
    before, went_on = signal.signal(signal.SIGHUP, signal.SIG_IGN), []

    def hang_up(_):
        signal.raise_signal(signal.SIGHUP)
        went_on.append(1)
        signal.raise_signal(signal.SIGTERM)

    try:
        serve(app, port=0, on_ready=hang_up)
        with processes._interruptible(), processes._undisturbed():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert went_on == [1]


@pytest.mark.parametrize("handled", [True, False])
def test_the_end_by_sigterm_is_told_to_the_program_if_it_listens(app, handled):
    """By its own handler, once the server has stopped; nothing interrupts what it does then."""
    told = []
    before = signal.getsignal(signal.SIGTERM)
    handler = (lambda *_: told.append("stopped")) if handled else signal.SIG_DFL
    try:
        signal.signal(signal.SIGTERM, handler)
        serve(app, port=0, on_ready=lambda _: signal.raise_signal(signal.SIGTERM))
        assert (["stopped"] * handled, handler) == (told, signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_of_who_is_told_that_it_is_ready_stops_the_server(app):
    """It is raised, and the port is free."""
    ports = []

    def fail(base_url):
        ports.append(int(base_url.rpartition(":")[2]))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(app, port=0, on_ready=fail)
    with socket.create_server(("127.0.0.1", ports[0])):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_signal_ends_the_program_cleanly(tmp_path, number):
    """No traceback, and what comes after the server is still done."""
    with program(tmp_path / "faces.db") as (process, base_url):
        with httpx.Client(base_url=base_url, trust_env=False) as client:
            assert new_person(client, "ada") == 0
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "closed\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["faces.db"]


def test_a_killed_server_keeps_every_answered_effect(tmp_path, full, rng: random.Random):
    """kill -9 at any moment: what was answered is there, and what is there is whole."""
    path = tmp_path / "faces.db"
    answered: list[str] = []
    for round_ in range(20 if full else 3):
        with program(path) as (process, base_url):
            killer = threading.Timer(rng.uniform(0, 0.25), process.kill)
            with httpx.Client(base_url=base_url, trust_env=False) as client, contextlib.suppress(httpx.HTTPError):
                for number in range(10_000):
                    person_id = f"r{round_}-{number}"
                    assert new_person(client, person_id) == 0
                    answered.append(person_id)
                    if number == 0:
                        killer.start()  # not before: the first answer may take a busy machine longer than all others
            process.wait(timeout=PATIENCE)
    with Store(path) as store:
        kept = store.person_ids("123456", "staff")
        assert [person_id for person_id in kept if person_id in set(answered)] == answered
        assert len(kept) <= len(answered) + (20 if full else 3)
        assert all(store.person("123456", person_id).group_ids == ["staff"] for person_id in kept)
    assert answered
