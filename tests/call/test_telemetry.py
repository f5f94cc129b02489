"""Spans and metrics of OpenTelemetry, read from the SDK's own memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from doubles import envelope, session_on
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from raw_server import RawServer, answer, reset_after_request, silence
from stacks import Stack, loop_of_stack, on_httpx, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from telemetrykit import Seen
from timing import PATIENCE

import face_async
from face_async import NotFoundError, RetryPolicy, Throttle, TransportError, UnavailableError, __version__
from face_async.local import local_session

pytestmark = pytest.mark.anyio

OBSERVING = Path(face_async.__file__).parent / "docs" / "observing.md"
AT_ONCE = RetryPolicy(base_delay=0)
INFO = envelope({"person_id": "ada", "person_name": "", "face_ids": [], "group_ids": [], "tag": ""})
BUSY = envelope(code=15)
ABSENT = envelope(code=-1303)


@pytest.fixture
def seen():
    return Seen()


def about(server, method):
    host, port = server.url.removeprefix("http://").split(":")
    return {"rpc.system.name": "face", "rpc.method": f"face/{method}", "server.address": host, "server.port": int(port)}


async def test_a_call_is_one_client_span(session_at, seen):
    """With its code, its attempts and its queueing, over every transport; failed attempts are events in it."""
    with RawServer([answer(BUSY), reset_after_request(), answer(INFO)]) as server:
        async with session_at(server, telemetry=seen.telemetry) as session:
            result = await session.get_info("ada")
    [span] = seen.spans
    assert (span.name, span.kind, span.status.status_code) == ("face/getinfo", SpanKind.CLIENT, StatusCode.UNSET)
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("face_async", __version__)
    assert dict(span.attributes) == about(server, "getinfo") | {
        "rpc.response.status_code": "0",
        "http.response.status_code": 200,
        "face_async.attempts": 3,
        "face_async.queued": result.meta.queued,
    }
    first, second = span.events
    assert (first.name, second.name) == ("face_async.attempt_failed",) * 2
    assert first.attributes["exception.type"] == "RateLimitedError"
    assert first.attributes["exception.message"].startswith("getinfo for person 'ada': 15 ")
    assert dict(second.attributes).keys() == {
        *("face_async.attempt", "face_async.pause", "exception.type", "exception.message"),
    }


async def test_metrics_are_of_calls_and_of_requests(session_at, seen):
    """Durations of both, sizes of bodies, time in the queue, slowdowns."""
    with RawServer([answer(BUSY), reset_after_request(), answer(INFO), answer(ABSENT, 500), answer(ABSENT)]) as server:
        async with session_at(server, telemetry=seen.telemetry) as session:
            await session.get_info("ada")
            for _ in range(2):
                with pytest.raises(NotFoundError):
                    await session.get_info("ada")
            sent = session.stats.bytes_sent
    call = about(server, "getinfo")
    where = {name: call[name] for name in ("server.address", "server.port")} | {"http.request.method": "POST"}
    calls = seen.points("rpc.client.call.duration")
    assert [(attributes, count) for attributes, count, _ in calls] == [
        (call | {"rpc.response.status_code": "0"}, 1),
        (call | {"rpc.response.status_code": "-1303", "error.type": "-1303"}, 2),
    ]
    assert all(0 < seconds < PATIENCE for *_, seconds in calls)
    assert [(attributes, count) for attributes, count, _ in seen.points("http.client.request.duration")] == [
        (where | {"http.response.status_code": 200}, 3),
        (where | {"error.type": "TransportError"}, 1),
        (where | {"http.response.status_code": 500, "error.type": "500"}, 1),
    ]
    assert sum(size for *_, size in seen.points("http.client.request.body.size")) == sent
    assert [(attributes, count) for attributes, count, _ in seen.points("face_async.client.queue.duration")] == [
        (call, 3)
    ]
    assert seen.values("face_async.client.slowdowns") == [1]


async def test_a_failed_call_is_a_failed_span(session_at, seen):
    """Its error is what the conventions say: the code where there is one, else the kind of the exception."""
    with RawServer([answer(ABSENT), answer(b"", 502)]) as server:
        async with session_at(server, telemetry=seen.telemetry, retry=RetryPolicy(max_attempts=1)) as session:
            for call in (session.get_info("ada"), session.del_person("ada")):
                with pytest.raises(Exception, match="ada"):
                    await call
        async with session_at("http://127.0.0.1:1", telemetry=seen.telemetry, retry=AT_ONCE) as session:
            with pytest.raises(TransportError):
                await session.get_info("ada")
    absent, bad, unsent = seen.spans
    assert [span.status.status_code for span in seen.spans] == [StatusCode.ERROR] * 3
    assert absent.status.description.startswith("getinfo for person 'ada': -1303")
    assert [span.attributes["error.type"] for span in seen.spans] == ["-1303", "ResponseError", "TransportError"]
    assert [span.attributes.get("rpc.response.status_code") for span in seen.spans] == ["-1303", None, None]
    assert [span.attributes.get("http.response.status_code") for span in seen.spans] == [200, 502, None]
    assert [span.attributes.get("face_async.maybe_applied") for span in seen.spans] == [None, True, None]
    assert (absent.end_time > absent.start_time, bad.events[0].name) == (True, "face_async.attempt_failed")
    assert unsent.attributes["face_async.attempts"] == 3


async def test_a_call_that_is_cancelled_ends_its_span(session_at, seen):
    """As failed, by the event loop's exception."""
    with RawServer([silence()]) as server:
        session = session_at(server, telemetry=seen.telemetry, timeout=PATIENCE)
        async with session, anyio.create_task_group() as tasks:
            tasks.start_soon(session.get_info, "ada")
            await anyio.to_thread.run_sync(server.began.acquire, True, PATIENCE)
            tasks.cancel_scope.cancel()
    [span] = seen.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == anyio.get_cancelled_exc_class().__qualname__


async def test_spans_say_how_a_doubt_was_settled_and_hold_those_of_looking(session_at, seen):
    """The calls that look are spans within that of the call."""
    script = [reset_after_request(), answer(envelope(code=-1302)), answer(INFO)]
    with RawServer(script) as server:
        async with session_at(server, telemetry=seen.telemetry) as session:
            made = await session.new_person("ada", ["staff"])
    looking, making = seen.spans
    assert (looking.name, making.name) == ("face/getinfo", "face/newperson")
    assert looking.parent.span_id == making.context.span_id
    assert making.attributes["face_async.settled"] == made.meta.settled == "the person was there already"
    assert (making.attributes["rpc.response.status_code"], making.status.status_code) == ("0", StatusCode.UNSET)


@on_httpx
async def test_spans_of_calls_are_within_the_span_of_their_task(seen):
    """Calls at once do not get into each other's spans, and afterwards the task's own span is current again."""
    tracer = seen.telemetry.tracer_provider.get_tracer("test")

    async def work(name):
        with tracer.start_as_current_span(name) as mine:
            await session.get_info("ada")
            assert trace.get_current_span() is mine

    session, _ = session_on(BUSY, INFO, retry=AT_ONCE, telemetry=seen.telemetry)
    async with session, anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(work, f"task {number}")
    outer = {span.context.span_id: span.name for span in seen.spans if span.name.startswith("task")}
    assert sorted(outer.values()) == sorted(outer[s.parent.span_id] for s in seen.spans if s.kind is SpanKind.CLIENT)


@on_httpx
async def test_queueing_is_told_and_bulk_calls_and_copies_are_spans_too(seen):
    """Whoever makes the call."""
    session, _ = session_on(
        envelope({"candidates": []}), telemetry=seen.telemetry, throttle=Throttle(max_rate=100, burst=1)
    )
    for _ in range(50):
        session._throttle.seconds_to_wait()  # others have taken the rate for half a second
    async with session:
        async with session.identify_many([b"\xff\xd8\xff"] * 2, "staff") as outcomes:
            await outcomes.collect()
        answered = await session.with_options(deadline=9).request("identify", {"group_id": "staff"})
    assert answered.status == 200
    assert [span.name for span in seen.spans] == ["face/identify"] * 3
    assert max(span.attributes["face_async.queued"] for span in seen.spans) > 0
    [(_, count, queued)] = seen.points("face_async.client.queue.duration")
    assert (count, queued) == (3, pytest.approx(session.stats.seconds_queued))


@on_httpx
async def test_codes_that_no_table_has_are_one_value(seen):
    """A server that answers a new code each time does not make a million series."""
    session, _ = session_on(*[envelope(code=code) for code in (777, 778)], telemetry=seen.telemetry)
    async with session:
        for _ in range(2):
            with pytest.raises(Exception, match="77"):
                await session.get_info("ada")
    [(attributes, count, _)] = seen.points("rpc.client.call.duration")
    assert (attributes["rpc.response.status_code"], attributes["error.type"], count) == ("_OTHER", "_OTHER", 2)


@on_httpx
async def test_the_local_server_in_process_is_seen_as_well(seen):
    """A local session takes the same argument."""
    async with local_session(recognizer="fingerprint", telemetry=seen.telemetry) as session:
        await session.new_person("ada", ["staff"])
    [span] = seen.spans
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("localhost", 80)


def test_without_the_extra_the_error_says_what_to_install():
    """Only a session that is given telemetry needs it; importing the package and other sessions do not."""
    program = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from face_async import Credentials, FaceSession, Telemetry
        FaceSession("1", "b", Credentials("i", "k"))
        try:
            FaceSession("1", "b", Credentials("i", "k"), telemetry=Telemetry())
        except ImportError as error:
            print(error)
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert ran.stdout == "telemetry= needs the extra 'telemetry': pip install 'face_async[telemetry]'\n"


def test_the_global_providers_are_the_default():
    """As everywhere in OpenTelemetry: whoever sets them before or after the session is opened."""
    program = """if True:
        import anyio
        from doubles import envelope, session_on
        from face_async import Telemetry
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        session, _ = session_on(envelope({"group_ids": ["staff"]}), telemetry=Telemetry())
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        anyio.run(session.get_group_ids)
        print([span.name for span in exporter.get_finished_spans()])
    """
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE, env=path
    )
    assert ran.stdout == "['face/getgroupids']\n"


@on_httpx
@pytest.mark.skipif(not OBSERVING.exists(), reason="the wheel leaves the documentation out")
async def test_the_documentation_names_all_that_is_given(seen):
    """Every metric with its unit, every attribute of spans, their events and metrics, and nothing else."""
    session, _ = session_on(BUSY, envelope(code=213), envelope(code=-1303), ABSENT, telemetry=seen.telemetry)
    async with session:
        await session.del_person("ada")
        with pytest.raises(NotFoundError):
            await session.get_info("ada")
    session, _ = session_on(envelope(code=213), telemetry=seen.telemetry, retry=AT_ONCE)
    async with session:
        with pytest.raises(UnavailableError):
            await session.del_person("ada")
    attributes = {name for span in seen.spans for name in span.attributes}
    attributes |= {name for span in seen.spans for event in span.events for name in (event.name, *event.attributes)}
    attributes |= {name for metric in seen.metrics for point in metric.data.data_points for name in point.attributes}
    named = set(
        re.findall(r"`((?:rpc|http|server|error|exception|face_async)\.[a-z_.]+)`", OBSERVING.read_text("utf-8"))
    )
    assert attributes | {metric.name for metric in seen.metrics} == named - {"face_async.server"}
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (\S+) \|", OBSERVING.read_text("utf-8"), re.MULTILINE))
    assert {metric.name: metric.unit for metric in seen.metrics}.items() <= rows.items()
