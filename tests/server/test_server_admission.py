"""Recognition for a crowd: who is let in, who is told to come again, and what is no longer worth while."""

from __future__ import annotations

import functools
import struct
import threading
import time

import anyio
import anyio.lowlevel
import pytest
from serverkit import (
    APPID,
    BOUNDARY,
    BUCKET,
    CREDENTIALS,
    Connection,
    SlowRecognizer,
    ToyRecognizer,
    authorization,
    calling,
    compare,
    multipart,
    part,
    picture,
    until,
)  # fmt: skip
from timing import PATIENCE

from face_async.server import RequestLimits, create_app, serve_in_background
from face_async.server.bounds.admission import RecognitionQueue
from face_async.server.refusal import Refusal

pytestmark = pytest.mark.anyio

FORM = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture
def one_processor(monkeypatch):
    monkeypatch.setattr("face_async.server.bounds.admission.processors", lambda: 1)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(store, one_processor):
    """Code 15 with Retry-After, while those who wait are served."""
    recognizer, codes, waits = SlowRecognizer(), [], []
    async with calling(store, recognizer=recognizer, request_limits=RequestLimits(max_waiting=1)) as caller:
        await caller.new_person("p")

        async def verify(shot):
            image = part("image", picture(1, shot))
            body = multipart(part("appid", APPID), part("bucket", BUCKET), part("person_id", "p"), image)
            headers = {"Content-Type": FORM, "Authorization": authorization()}
            response = await caller.client.post("/face/verify", content=body, headers=headers)
            codes.append(response.json()["code"])
            waits.append(response.headers.get("retry-after"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(verify, 1)
            await until(lambda: recognizer.seen)
            tasks.start_soon(verify, 2)
            tasks.start_soon(verify, 3)
            await until(lambda: codes)
            assert (codes, waits) == ([15], ["1"])
            recognizer.go.set()
    assert (codes, waits) == ([15, 0, 0], ["1", None, None])


async def test_who_would_wait_too_long_is_told_when_there_is_room(one_processor):
    """Half of what is expected, so that the queue does not run empty meanwhile; the first never waits."""
    queue = RecognitionQueue(RequestLimits(max_wait=0.5))
    go = threading.Event()

    def look(content):
        assert go.wait(PATIENCE)
        return content

    async with anyio.create_task_group() as tasks:
        for _ in range(60):  # each of which is expected to take a hundredth of a second
            tasks.start_soon(functools.partial(queue.run, look, b"", pixels=0, waits=True))
        await until(lambda: len(queue._waiting) == 59)
        with pytest.raises(Refusal) as refused:
            queue.require_room(1)
        assert (refused.value.code, refused.value.retry_after) == (15, 1)
        with pytest.raises(
            Refusal
        ) as refused:  # and if it was expected sooner than it comes, it does not wait for ever
            await queue.run(look, b"", pixels=0)
        assert refused.value.code == 15
        go.set()
    queue.require_room(1)


async def test_a_busy_event_loop_is_not_taken_for_slow_recognition(one_processor):
    """What reading many requests takes at a moment says nothing about the time that a picture has to wait."""
    queue = RecognitionQueue(RequestLimits(max_wait=0.5))
    over = anyio.Event()

    async def be_busy():
        while not over.is_set():
            time.sleep(0.05)  # noqa: ASYNC251 - as many small steps of other requests would
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(be_busy)
        for _ in range(4):
            await queue.run(len, b"", pixels=0)
        for _ in range(20):
            tasks.start_soon(functools.partial(queue.run, len, b"", pixels=0))
        await until(lambda: queue._waiting)
        queue.require_room(1)
        over.set()


async def test_pictures_are_looked_at_together_as_far_as_their_pixels_allow(monkeypatch):
    """A huge one alone; small ones on every processor; and in the order in which they came."""
    monkeypatch.setattr("face_async.server.bounds.admission.processors", lambda: 4)
    queue, lock, now, most, order = RecognitionQueue(), threading.Lock(), [], [], []
    go, together = threading.Event(), threading.Barrier(4)

    def look(content):
        with lock:
            now.append(content)
            most.append(sorted(now))
            order.append(content)
        assert go.wait(PATIENCE)
        if content != b"0":
            together.wait(PATIENCE)
        with lock:
            now.remove(content)

    async with anyio.create_task_group() as tasks:
        for index, pixels in enumerate([60_000_000, 60_000_000, 1, 1, 1]):
            tasks.start_soon(functools.partial(queue.run, look, b"%d" % index, pixels=pixels))
            await until(lambda: order and len(order) + len(queue._waiting) > index)  # noqa: B023 - at once
        go.set()
    assert [each for each in most if b"0" in each] == [[b"0"]]
    assert [b"1", b"2", b"3", b"4"] in most
    assert (queue._running, queue._pixels, len(queue._waiting)) == (0, 0, 0)


def claiming(width, height):
    """A PNG that says how large it is, and has nothing else."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + bytes(4)


async def test_what_claims_more_pixels_than_are_decoded_never_waits(store, one_processor):
    """It is refused for good while others wait, of whom nobody waits longer for it."""
    recognizer = SlowRecognizer()
    request_limits = RequestLimits(max_waiting=1)
    async with calling(store, recognizer=recognizer, request_limits=request_limits) as caller:
        await caller.new_person("p")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller.add_faces, "p", picture(1))
            await until(lambda: recognizer.seen)
            for width, height in ((2**31 - 1, 2**31 - 1), (8_001, 10_000)):
                answer = await caller.multipart(
                    "identify", part("group_id", "staff"), part("image", claiming(width, height))
                )
                assert answer[0] == -1102
            tasks.start_soon(caller.add_faces, "p", picture(2))
            await anyio.wait_all_tasks_blocked()
            recognizer.go.set()
    assert recognizer.seen == [picture(1), picture(2)]


async def test_pictures_that_cannot_be_decoded_make_the_pace_no_faster(one_processor):
    """By what they only claim, the next ones would be let in to wait for longer than they may; slower they make it."""
    queue = RecognitionQueue()

    async def pace_after(code):
        def look(_):
            raise Refusal(code)

        with pytest.raises(Refusal):
            await queue.run(look, b"", pixels=80_000_000)
        return queue._pace

    first = queue._pace
    assert [await pace_after(code) for code in (-1102, -1400, -1300)] == [first] * 3
    assert await pace_after(-1101) < first  # it has no face: that is what looking takes
    queue._pace = 0.0
    assert await pace_after(-1102) > 0


async def test_what_a_caller_sent_who_has_gone_is_not_looked_at(store, one_processor, full):
    """Neither what waits in the queue, nor the next picture of a request that is being answered."""
    count = 60 if full else 6
    recognizer = SlowRecognizer()
    app = create_app(store, credentials=CREDENTIALS, recognizer=recognizer)
    async with serve_in_background(app) as server:
        for shot in range(count):
            leaving = Connection(server.port)
            leaving.send(compare(picture(shot, 1), picture(shot, 2)))
            if not shot:
                await until(lambda: recognizer.seen)
            leaving.socket.close()
        await anyio.sleep(0.2)  # for the server to see that they have gone
        recognizer.go.set()
        staying = Connection(server.port)
        staying.send(compare(picture(98), picture(99)))
        assert b'"code":0' in await anyio.to_thread.run_sync(staying.answer)
        staying.socket.close()
    assert {picture(98), picture(99)} < set(recognizer.seen)
    assert len(recognizer.seen) == 3  # what was begun cannot be taken back


async def test_a_picture_for_several_groups_is_looked_at_once(store):
    """At the same time or one after the other; for another account it is looked at anew."""
    recognizer = SlowRecognizer()
    recognizer.go.set()
    async with calling(store, recognizer=recognizer) as caller:
        for group in ("a", "b", "c"):
            await caller.new_person(f"p{group}", group)

        async def identify(group):
            await caller.ok("identify", part("group_id", group), part("image", picture(1)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(identify, "a")
            tasks.start_soon(identify, "b")
        await identify("c")
        assert recognizer.seen == [picture(1)]
        nobody = part("image", b"nobody")
        assert [(await caller.multipart("identify", part("group_id", "a"), nobody))[0] for _ in "12"] == [-1101] * 2
        assert recognizer.seen == [picture(1), b"nobody"]


async def test_a_lack_of_memory_says_nothing_about_the_picture(store):
    """213, after which clients try again; not that it is damaged, for which they would give it up for good."""

    class Exhausted(ToyRecognizer):
        def find_face(self, content):
            raise MemoryError

    async with calling(store, recognizer=Exhausted()) as caller:
        pictures = [part("imageA", picture(1)), part("imageB", picture(2))]
        assert (await caller.multipart("compare", *pictures))[0] == 213
