"""Pictures by URL: only from hosts that were listed, and never anything else; whatever fails is -1308."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading

import anyio
import httpx
import pytest
from serverkit import calling, part, picture, until
from timing import PATIENCE

from face_async.server.bounds.bodies import BodyMemory
from face_async.server.fetch import CONNECTION_BYTES, AllowedHost, Fetcher
from face_async.server.refusal import Refusal

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


@contextlib.contextmanager
def web_server(answer: bytes, *, hold: bool = False):
    """Answers every connection with these bytes; yields its port and the requests it got."""
    requests: list[bytes] = []
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while not stopped.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(PATIENCE)
                    if stopped.is_set():
                        return
                    requests.append(connection.recv(65_536))
                    connection.sendall(answer)
                    if hold:
                        stopped.wait(PATIENCE)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1], requests
        finally:
            stopped.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


@contextlib.contextmanager
def stalling(answer: bytes):
    """Answers every connection with the beginning of an answer, and never with more; yields its port."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as held:

        def run() -> None:
            while True:
                connection = held.enter_context(listener.accept()[0])
                if stopped.is_set():
                    return
                with contextlib.suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


async def refused(fetcher: Fetcher, url: str) -> bool:
    try:
        await fetcher.fetch(url)
    except Refusal as refusal:
        return refusal.code == -1308
    return False


def allowing(*entries: str, max_bytes: int = 1_000, timeout: float = 5.0) -> Fetcher:
    return Fetcher(entries, max_bytes=max_bytes, timeout=timeout)


@pytest.fixture
def names(monkeypatch):
    """What every name leads to; tests fill in addresses."""
    addresses: list[str] = []
    look_up = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **options):
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)  # which event loops parse by it
            return look_up(host, port, *args, **options)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


async def test_a_picture_is_fetched_from_a_listed_host(store):
    """All five endpoints that take URLs do it."""
    with web_server(OK % (len(picture(1)), picture(1))) as (port, requests):
        url = f"http://127.0.0.1:{port}/a.jpg?x=1"
        async with calling(store, url_allow_list=[f"127.0.0.1:{port}"]) as caller:
            assert (await caller.ok("newperson", person_id="ada", group_ids=["staff"], url=url))["suc_face"] == 1
            assert (await caller.ok("addface", person_id="ada", urls=[url, url]))["ret_codes"] == [-1312, -1312]
            assert (await caller.ok("verify", person_id="ada", url=url))["confidence"] == 100.0
            assert (await caller.ok("identify", group_id="staff", url=url))["candidates"][0]["person_id"] == "ada"
            assert (await caller.ok("compare", part("imageA", picture(1)), part("urlB", url)))["similarity"] == 100.0
    assert requests[0].startswith(b"GET /a.jpg?x=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in requests[0]


async def test_nothing_is_fetched_unless_told(caller):
    """The list is empty unless configured; and each picture of addface has its own code."""
    url = "http://127.0.0.1:1/a.jpg"
    for name in ("verify", "identify", "compare"):
        await caller.json("newperson", person_id=name, group_ids=["staff"])
        sent = {"person_id": name, "group_id": "staff", "url": url, "urlA": url, "urlB": url}
        assert (await caller.json(name, **sent))[0] == -1308
    assert (await caller.ok("addface", person_id="verify", urls=[url, "not a url"]))["ret_codes"] == [-1308, -1308]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "file:///etc/passwd",
        "ftp://example.com/",
        "//example.com/",
        "http://",
        "http://other.com/",
        "http://example.com.evil.com/",
        "http://evilexample.com/",
        "http://example.com:8080/",
        "https://example.com:80/",
        "http://example.com@evil.com/",
        "http://user:pass@example.com/",
        "http://evil.com\\@example.com/",
        "http://below.com/",
        "http://10.0.0.7/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://[broken/",
        "http://example.com:99999/",
        "http://example.com\r\nX: y/",
        "http://" + "x" * 100_000,
    ],
    ids=lambda url: url[:40],
)
async def test_a_url_that_matches_no_entry_is_refused(names, url):
    """Before any name is looked up."""
    names.append("93.184.215.14")
    assert await refused(allowing("example.com", "*.below.com", "*.0.0.7"), url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
async def test_a_listed_name_may_not_lead_inside(names, address):
    """Not even as one address of several."""
    names.extend(["93.184.215.14", address])
    assert await refused(allowing("example.com"), "http://example.com/")


async def test_the_checked_address_is_the_one_connected_to(names, monkeypatch):
    """The name goes into the Host header and the TLS handshake only, so that it is looked up once."""
    sent = []

    async def handle(self, request):
        sent.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"picture"))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
    names.append("93.184.215.14")
    assert await allowing("*.example.com:8443").fetch("https://Cdn.Example.com:8443/a") == b"picture"
    (request,) = sent
    assert request.url.host == "93.184.215.14"
    assert request.headers["host"] == "cdn.example.com:8443"
    assert request.extensions["sni_hostname"] == "cdn.example.com"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        OK % (1_001, b"x" * 1_001),
        OK % (1_001, b""),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"no http at all\r\n\r\n",
        b"",
    ],
    ids=lambda answer: answer[:24].decode("latin-1"),
)
async def test_an_answer_that_is_no_picture_is_refused(answer):
    """Redirects are not followed, sizes are capped, broken answers are no fault of the server."""
    with web_server(answer) as (port, _):
        assert await refused(allowing(f"127.0.0.1:{port}"), f"http://127.0.0.1:{port}/")


async def test_a_slow_answer_is_given_up():
    """The time is for the whole picture, however much of it drips in."""
    with web_server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", hold=True) as (port, _):
        with anyio.fail_after(PATIENCE / 2):
            assert await refused(allowing(f"127.0.0.1:{port}", timeout=0.2), f"http://127.0.0.1:{port}/")


ARRIVING = {"as declared": (60_000, 1_000), "as it comes": (None, 60_000)}


@pytest.mark.parametrize("how", ARRIVING)
async def test_pictures_take_memory_while_they_arrive(how):
    """The request that has fetched for the longest time makes room for the next one: slow hosts take nobody's."""
    declared, sent = ARRIVING[how]
    length = b"" if declared is None else b"Content-Length: %d\r\n" % declared
    memory, ended = BodyMemory(2 * CONNECTION_BYTES + 100_000), []
    with stalling(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + bytes(sent)) as port:

        async def fetch(name):
            with memory.held() as body:
                try:
                    await allowing(f"127.0.0.1:{port}", max_bytes=100_000).fetch(f"http://127.0.0.1:{port}/", body)
                except Refusal as refusal:
                    ended.append((name, refusal.code, refusal.retry_after))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, "first")
            await until(lambda: memory._taken == CONNECTION_BYTES + 60_000)
            tasks.start_soon(fetch, "second")
            await until(lambda: ended)
            assert ended == [("first", 15, 1)]
            await until(lambda: memory._taken == CONNECTION_BYTES + 60_000)
            tasks.cancel_scope.cancel()
    assert (memory._taken, len(memory.arriving)) == (0, 0)


async def test_connections_take_memory_before_anything_arrives():
    """Which bounds how many wait for slow hosts; each gives it back, and pictures that have come keep theirs."""
    memory = BodyMemory(10 * CONNECTION_BYTES)
    with web_server(OK % (3, b"abc")) as (quick, _), stalling(b"") as slow, memory.held() as body:
        fetcher = allowing(f"127.0.0.1:{slow}", f"127.0.0.1:{quick}", timeout=PATIENCE)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(fetcher.fetch, f"http://127.0.0.1:{slow}/", body)
            await until(lambda: memory._taken == 3 * CONNECTION_BYTES)
            assert await fetcher.fetch(f"http://127.0.0.1:{quick}/", body) == b"abc"
            assert memory._taken == 3 * CONNECTION_BYTES + 3
            assert body in memory.arriving
            tasks.cancel_scope.cancel()
        assert (memory._taken, len(memory.arriving)) == (3, 0)


async def test_what_had_to_make_room_fetches_no_more():
    """Whichever of its pictures has its turn then."""
    memory = BodyMemory(10)
    with web_server(b"") as (port, requests), memory.held() as body:
        body.evict()
        with pytest.raises(Refusal, match="15"):
            await allowing(f"127.0.0.1:{port}").fetch(f"http://127.0.0.1:{port}/", body)
        assert not requests


async def test_a_host_that_is_not_there_is_refused(names):
    """No such name; nobody listening; no TLS where it was promised."""
    assert await refused(allowing("example.com"), "http://example.com/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert await refused(allowing(f"127.0.0.1:{port}"), f"http://127.0.0.1:{port}/")
    with web_server(b"plain text") as (port, _):
        assert await refused(allowing(f"127.0.0.1:{port}"), f"https://127.0.0.1:{port}/")
    assert ssl.HAS_SNI


async def test_an_empty_picture_is_minus_1300(store):
    """It was fetched, and there is nothing in it."""
    with web_server(OK % (0, b"")) as (port, _):
        async with calling(store, url_allow_list=[f"127.0.0.1:{port}"]) as caller:
            code, _ = await caller.json("newperson", person_id="a", group_ids=["g"], url=f"http://127.0.0.1:{port}/")
            assert code == -1300


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("Example.com", "example.com", None),
        ("*.example.com:8080", "*.example.com", 8080),
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("[::1]:9000", "::1", 9000),
        ("::1", "::1", None),
    ],
)
def test_an_entry_is_a_host_and_perhaps_a_port(anyio_backend, entry, host, port):
    """Names in any case, addresses of both kinds."""
    assert AllowedHost.parse(entry) == AllowedHost(host, port)


@pytest.mark.parametrize("entry", ["", "http://example.com", "example.com:http", "example.com:0", "a:99999", ":80"])
def test_an_entry_that_cannot_be_read_is_an_error_at_once(anyio_backend, entry):
    """Not when the first request comes."""
    with pytest.raises(ValueError, match="url_allow_list"):
        AllowedHost.parse(entry)
