"""Requests as they stand on the wire: what a proxy gets, offers of other protocols, and envelopes all the same."""

from __future__ import annotations

import json
import logging
import socket

import anyio
import anyio.to_thread
import pytest
from serverkit import APPID, BUCKET, CREDENTIALS, ToyRecognizer, authorization

from face_async.server import Store, create_app, serve_in_background

pytestmark = pytest.mark.anyio

BODY = json.dumps({"appid": APPID, "bucket": BUCKET}).encode()


@pytest.fixture(scope="module")
async def port(anyio_backend):
    with Store() as store:
        app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer())
        async with serve_in_background(app) as server:
            yield server.port


def request(target: str, *lines: str, method: str = "POST", body: bytes = BODY) -> bytes:
    """Return a request with everything that a call needs, for this target, and with these lines beside."""
    head = [
        f"{method} {target} HTTP/1.1",
        "Host: service.image.myqcloud.com",
        f"Authorization: {authorization()}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *lines,
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


async def exchange(port: int, *requests: bytes) -> list[tuple[int, dict]]:
    """Send requests on one connection, each after the answer before it; return the statuses and the envelopes."""

    def speak() -> list[tuple[int, dict]]:
        with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rb") as stream:
            answers = []
            for each in requests:
                connection.sendall(each)
                status = int(stream.readline().split()[1])
                headers = {}
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    headers[name.lower()] = value
                answers.append((status, json.loads(stream.read(int(headers[b"content-length"])))))
            return answers

    return await anyio.to_thread.run_sync(speak)


async def code(port: int, target: str, **more: str) -> tuple[int, int]:
    ((status, envelope),) = await exchange(port, request(target, **more))
    return status, envelope["code"]


@pytest.mark.parametrize(
    "target",
    [
        "http://service.image.myqcloud.com/face/getgroupids",
        "http://recognition.image.myqcloud.com:80/face/getgroupids",
        "HTTP://x/face/getgroupids",
        "https://service.image.myqcloud.com/face/getgroupids",
        "http://service.image.myqcloud.com//face/getgroupids/",
        "http://user@[::1]:80/face/getgroupids?x=http://y/",
        "/face/getgroupids",
    ],
)
async def test_a_target_in_absolute_form_is_like_any_other(port, target):
    """RFC 9112, 3.2.2: what a client sends to its HTTP proxy."""
    assert await code(port, target) == (200, 0)


@pytest.mark.parametrize(
    "target",
    [
        "http://example.com/",
        "http://example.com",
        "http://example.com/faces/getgroupids",
        "http://example.com/x/face/getgroupids",
        "http://service.image.myqcloud.com/ocr/idcard",
        "http://example.com/?/face/getgroupids",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_is_forwarded(port, target, method):
    """403, with an envelope; whatever is asked of a proxy beside the API."""
    assert await code(port, target, method=method) == (403, 3)


@pytest.mark.parametrize("target", ["service.image.myqcloud.com:443", "127.0.0.1:80", "example.com:443"])
async def test_no_tunnel_is_opened(port, target):
    """405 for CONNECT: a status of success would be a tunnel; and the connection goes on."""
    connect = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    answers = await exchange(port, connect, request("/face/getgroupids"))
    assert [(status, envelope["code"]) for status, envelope in answers] == [(405, 3), (200, 0)]


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("Connection: Upgrade", "Upgrade: h2c"),
        ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
        ("Connection: Upgrade", "Upgrade: TLS/1.0"),
    ],
    ids=lambda lines: lines[1],
)
async def test_an_offer_to_upgrade_is_ignored_in_silence(port, lines, caplog):
    """RFC 9110, 7.8 lets a server do so. Java's and curl's clients offer h2c with every request."""
    with caplog.at_level(logging.DEBUG):
        answers = await exchange(port, *[request("/face/getgroupids", *lines)] * 2)
    assert [(status, envelope["code"]) for status, envelope in answers] == [(200, 0)] * 2
    logged = [record for record in caplog.records if record.name != "face_async.access"]
    assert [record for record in logged if record.levelno >= logging.INFO] == []


async def test_members_come_in_the_order_of_the_hosted_service(port):
    """``code``, ``message``, ``data``."""
    ((_, envelope),) = await exchange(port, request("/face/getgroupids"))
    assert list(envelope) == ["code", "message", "data"]
