"""Memory for the bodies of requests: bounded together, and whoever sends slowly takes nobody's room."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from serverkit import (
    BOUNDARY,
    CREDENTIALS,
    Connection,
    SlowRecognizer,
    ToyRecognizer,
    authorization,
    calling,
    compare,
    part,
    picture,
    program,
    until,
    web,
    whole,
)
from timing import PATIENCE

from face_async.server import RequestLimits, create_app, serve_in_background
from face_async.server.bounds import bodies
from face_async.server.bounds.bodies import BodyMemory
from face_async.server.refusal import Refusal

pytestmark = pytest.mark.anyio


def half_upload(size: int, part_sent: float) -> bytes:
    """A request of so many bytes, of which only a part is sent."""
    head = (
        f"POST /face/addface HTTP/1.1\r\nHost: server\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {size}\r\nAuthorization: {authorization()}\r\n\r\n--{BOUNDARY}\r\n"
    )
    body = part("images[0]", bytes(size))
    return head.encode() + body[: int(size * part_sent)]


@contextlib.contextmanager
def stalled(port: int, count: int, size: int):
    """Yield connections whose uploads have stopped shortly before their ends."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(Connection(port).socket)) for _ in range(count)]
        for connection in connections:
            connection.sendall(half_upload(size, 0.93))
        yield connections


async def test_uploads_that_take_long_make_room(store):
    """They get code 15 with Retry-After; whoever sends what is needed is answered as ever."""
    limits, answers = RequestLimits(max_body_bytes=1_000_000), []
    app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer(), request_limits=limits)
    async with serve_in_background(app) as server:
        slow, honest = [Connection(server.port) for _ in range(5)], Connection(server.port)

        async def upload(connection):
            connection.send(half_upload(400_000, 0.93))
            if answer := await anyio.to_thread.run_sync(connection.answer):
                answers.append(answer)

        async with anyio.create_task_group() as tasks:
            for connection in slow:
                tasks.start_soon(upload, connection)
            await until(lambda: len(answers) == 3)
            honest.send(whole())
            assert b'"code":0' in await anyio.to_thread.run_sync(honest.answer)
            for connection in slow:
                with contextlib.suppress(OSError):  # it has ended
                    connection.socket.shutdown(socket.SHUT_RDWR)
        for connection in [*slow, honest]:
            connection.socket.close()
    assert [json.loads(answer.partition(b"\r\n\r\n")[2])["code"] for answer in answers] == [15] * 3
    assert all(b"retry-after: 1\r\n" in answer for answer in answers)


async def test_the_upload_that_began_first_makes_room_first():
    memory, ended = BodyMemory(10), []

    async def upload(number):
        try:
            with memory.held() as body, body.arriving():
                body.take(4)
                await anyio.sleep_forever()
        except Refusal as refusal:
            ended.append((number, refusal.code, refusal.retry_after))

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(upload, number)
            await anyio.wait_all_tasks_blocked()
        assert ended == [(0, 15, 1), (1, 15, 1)]
        tasks.cancel_scope.cancel()
    assert memory._taken == 0


async def test_bodies_that_have_arrived_are_answered_and_a_further_one_is_refused(store):
    recognizer, answers = SlowRecognizer(), []
    limits = RequestLimits(max_body_bytes=1_000_000)
    app = create_app(store, credentials=CREDENTIALS, recognizer=recognizer, request_limits=limits)

    async def ask(port, number):
        caller = Connection(port)
        caller.send(compare(picture(number).ljust(400_000), picture(9)))
        answers.append(await anyio.to_thread.run_sync(caller.answer))
        caller.socket.close()

    async with serve_in_background(app) as server:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(ask, server.port, number)
            await until(lambda: answers)
            assert b'"code":15' in answers[0]
            recognizer.go.set()
        await ask(server.port, 4)  # there is room again
    assert b'"code":0' in answers[-1]


async def test_pictures_that_are_fetched_take_of_the_same_memory(store, tmp_path):
    """Beyond it the whole request is refused, as clients try that again; not one of its pictures, which they do not."""
    (tmp_path / "large").write_bytes(bytes(80_000))
    recognizer, codes = SlowRecognizer(), []
    with web(tmp_path) as host:
        options = {"url_allow_list": [host], "request_limits": RequestLimits(max_body_bytes=50_000)}
        async with calling(store, recognizer=recognizer, **options) as caller, anyio.create_task_group() as tasks:
            await caller.new_person("p")

            async def add_face():
                codes.append((await caller.json("addface", person_id="p", urls=[f"http://{host}/large"]))[0])

            tasks.start_soon(caller.add_faces, "p", picture(1))
            await until(lambda: recognizer.seen)
            await add_face()
            recognizer.go.set()
    assert codes == [15]


async def test_one_body_alone_may_have_more():
    """As a limit below that of requests would refuse them for ever."""
    memory = BodyMemory(10)
    with memory.held() as body:
        body.take(100)
        with memory.held() as other, pytest.raises(Refusal) as refused:
            other.take(1)
    assert (refused.value.code, refused.value.retry_after) == (15, 1)
    assert memory._taken == 0


def test_a_small_machine_gives_bodies_a_part_of_its_memory(monkeypatch, anyio_backend):
    for memory, expected in ((64_000_000_000, 128_000_000), (512_000_000, 64_000_000)):
        monkeypatch.setattr(bodies, "memory_limit", lambda memory=memory: memory)
        assert bodies.most_body_bytes() == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the memory of a process")
async def test_uploads_that_stop_grow_the_server_by_no_more_than_their_memory(tmp_path, full):
    """200 of 2 MB with --full, which are 375 MB; an honest call is answered within a second."""

    def resident(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024

    with program(tmp_path / "faces.db") as (process, url):
        port = int(url.rpartition(":")[2])
        before = resident(process.pid)
        with stalled(port, 200 if full else 20, 1_900_000):
            await anyio.sleep(1)
            honest, began = Connection(port), time.monotonic()
            honest.send(whole())
            assert b'"code":0' in await anyio.to_thread.run_sync(honest.answer)
            assert time.monotonic() - began < (1 if full else PATIENCE)
            assert resident(process.pid) - before <= 200_000_000
            honest.socket.close()
