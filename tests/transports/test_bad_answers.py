"""Answers that break HTTP or the specification, are hostile, or ask for another try."""

from __future__ import annotations

import gc
import itertools
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from doubles import envelope
from faults import BROKEN, CHUNKED, FLOOD, HTML, REFUSED, SET, bomb
from raw_server import RawServer, answer, http, say
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import Stopwatch
from transportkit import INFO, ONCE

from face_async import RateLimitedError, ResponseError, TransportError, UnavailableError
from face_async._transports.base import MAX_ANSWER_BYTES

pytestmark = pytest.mark.anyio

# Bad answers


@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_that_breaks_http_is_a_transport_error(session_at, name):
    """No complete answer came: a read is tried again, an effect is in doubt."""
    with RawServer([BROKEN[name], answer(INFO), BROKEN[name]]) as server:
        async with session_at(server) as session:
            assert (await session.get_info("p")).meta.attempts == 2
            with pytest.raises(TransportError, match="setinfo") as caught:
                await session.with_options(retry=ONCE).set_info("p", tag="t")
    assert (caught.value.maybe_applied, caught.value.attempts) == (True, 1)


@pytest.mark.parametrize("name", REFUSED)
async def test_an_answer_that_breaks_the_specification_is_a_response_error(session_at, name):
    """It is read no further than it must be; a read is tried again, an effect is in doubt."""
    behavior, said = REFUSED[name]
    with RawServer([behavior, answer(INFO), behavior]) as server:
        async with session_at(server) as session:
            assert (await session.get_info("p")).meta.attempts == 2
            with pytest.raises(ResponseError, match=said) as caught:
                await session.with_options(retry=ONCE).set_info("p", tag="t")
    assert (caught.value.status, caught.value.path) == (200, "$")
    assert (caught.value.maybe_applied, caught.value.attempts) == (True, 1)


async def test_informational_answers_are_passed_over(session_at):
    """100 and 103 come before the answer, not in its place."""
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with RawServer([say(hints + http(INFO)), answer(INFO)]) as server:
        async with session_at(server) as session:
            for _ in range(2):
                assert (await session.get_info("p")).person_name == "Ada"
    assert server.accepted == 1


@pytest.mark.parametrize("headers", [[("X", "v" * 200_000)], [("X", "v" * 1_000)] * 200, [("X", "v" * 50)] * 4_000])
async def test_two_hundred_kilobytes_of_headers(session_at, headers):
    """They are read or refused, as the library likes; both is done once and for all."""
    with RawServer(itertools.repeat(answer(INFO, 200, *headers))) as server:
        async with session_at(server) as session:
            try:
                assert (await session.get_info("p")).meta.attempts == 1
            except TransportError as error:
                assert error.attempts == 3  # noqa: PT017 - either is right
                assert "HTTP" in str(error)  # noqa: PT017


HOSTILE = {
    "gzip": lambda: answer(bomb(), 200, ("Content-Encoding", "gzip, gzip")),
    "1xx flood": lambda: FLOOD,
    "empty objects": lambda: answer(b"[" + b"{}," * 1_300_000 + b"{}]"),
    "one emoji": lambda: answer('["😀'.encode() + b"a" * 4_000_000 + b'"]'),
    "wrong entries": lambda: answer(INFO.replace(b'"face_ids": []', b'"face_ids": [' + b"1," * 65_000 + b"1]")),
    "large": lambda: answer(b" " * MAX_ANSWER_BYTES),
    "large, in chunks": lambda: say(CHUNKED + b"10000\r\n%b\r\n" % (b" " * 65_536) * 64 + b"0\r\n\r\n"),
    **{name: lambda name=name: BROKEN[name] for name in ("endless headers", "one endless header")},
    **{name: lambda name=name: REFUSED[name][0] for name in ("oversized", "endless chunks")},
}


@contextmanager
def memory_growth(grown):
    """Append to a list by how many bytes this process was larger within the block than before, at most."""

    def resident(row):
        return int(re.search(rf"{row}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))[1]) * 1_024

    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget what it was at most
    except OSError:
        pytest.skip("this system does not tell")
    before = resident("VmRSS")
    yield
    grown.append(resident("VmHWM") - before)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer_takes_neither_memory_nor_time(session_at, name):
    """At no moment 16 MiB more than before, also outside of Python's own count, and no call far over its deadline."""
    behavior = HOSTILE[name]()
    grown, took = [], []
    with RawServer(itertools.repeat(behavior)) as server:
        async with session_at(server, deadline=0.3, retry=ONCE) as session:
            # The first time, the allocator takes its share; and there are four tries to be in time.
            while len(took) < 2 or (min(took) > 0.55 and len(took) < 4):
                with memory_growth(grown):
                    watch = Stopwatch()
                    with pytest.raises((TransportError, ResponseError)):
                        await session.get_info("p")
                    took.append(watch.net)
    assert min(took) <= 0.55
    assert grown[-1] <= 16 * 1024 * 1024


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(session_at, status):
    """Pictures and signatures go where base_url says, whoever says otherwise."""
    with RawServer([]) as other, RawServer([answer(HTML, status, ("Location", other.url))]) as server:
        async with session_at(server, retry=ONCE) as session:
            with pytest.raises(ResponseError) as caught:
                await session.set_info("p", tag="t")
    assert caught.value.status == status
    assert other.accepted == 0


# Answers that ask for another try


@pytest.mark.parametrize("code", [15, 107, 108])
async def test_a_code_that_says_not_executed_is_tried_again(session_at, code):
    """Codes 15, 107 and 108 come before any effect, so effects are tried again too."""
    again = answer(envelope(code=code))
    with RawServer([again, answer(SET), again, again, answer(INFO), again, again, again]) as server:
        async with session_at(server) as session:
            assert (await session.set_info("p", tag="t")).meta.attempts == 2
            assert (await session.get_info("p")).meta.attempts == 3
            with pytest.raises((RateLimitedError, UnavailableError)) as caught:
                await session.set_info("p", tag="t")
    assert (caught.value.code, caught.value.attempts) == (code, 3)


@pytest.mark.parametrize("code", [213, -1200])
async def test_a_code_that_says_nothing_of_the_effect(session_at, code):
    """Codes 213 and -1200 are tried again; an effect that is not stays in doubt."""
    again = answer(envelope(code=code))
    with RawServer([again, answer(INFO), again, answer(SET), again]) as server:
        async with session_at(server) as session:
            assert (await session.get_info("p")).meta.attempts == 2
            assert (await session.set_info("p", tag="t")).meta.attempts == 2
            with pytest.raises(UnavailableError, match="look before repeating") as caught:
                await session.with_options(retry=ONCE).set_info("p", tag="t")
    assert (caught.value.code, caught.value.attempts, caught.value.maybe_applied) == (code, 1, True)


async def test_an_error_page_of_a_gateway(session_at):
    """HTTP 503 leaves an effect in doubt, HTTP 429 does not."""
    down, busy = answer(HTML, 503), answer(HTML, 429)
    with RawServer([down, answer(INFO), down, busy, answer(SET), busy, busy, busy]) as server:
        async with session_at(server) as session:
            assert (await session.get_info("p")).meta.attempts == 2
            with pytest.raises(ResponseError) as in_doubt:
                await session.with_options(retry=ONCE).set_info("p", tag="t")
            assert (await session.set_info("p", tag="t")).meta.attempts == 2
            with pytest.raises(ResponseError) as certain:
                await session.set_info("p", tag="t")
    assert (in_doubt.value.status, in_doubt.value.maybe_applied, in_doubt.value.attempts) == (503, True, 1)
    assert (certain.value.status, certain.value.maybe_applied, certain.value.attempts) == (429, False, 3)
