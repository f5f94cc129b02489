"""One secret key, its signatures and one picture, through everything that this package says: none of them is heard."""

from __future__ import annotations

import copy
import gc
import io
import logging
import pickle
import traceback

import httpx
import pytest
from doubles import envelope
from faults import FAULTS
from raw_server import RawServer, answer
from specification import ANSWERS
from stacks import Stack, loop_of_stack, on_httpx, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from telemetrykit import Seen
from timing import PATIENCE
from verbs import CALLS

from face_async import (
    CallError,
    Credentials,
    FaceError,
    FaceSession,
    ImageFile,
    ImageRefusedError,
    NewPerson,
    RequestTooLargeError,
    RetryPolicy,
    ServiceError,
)
from face_async.errors import CODES

pytestmark = pytest.mark.anyio

KEY = "KEYcanaryKEYcanary"
SHOWN = "PICTUREcanaryPICTURE"
PICTURE = b"\xff\xd8\xff" + SHOWN.encode()
CREDENTIALS = Credentials("AKIDcanary", KEY)
ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(base_delay=0)


def everything_said_by(error: BaseException) -> list[str]:
    """Return all text of an error and its copies, and of every error behind it."""
    pending, texts = [error], []
    while pending:
        error = pending.pop()
        texts += [repr(error), str(error), repr(error.args), repr(vars(error)), *traceback.format_exception(error)]
        if isinstance(error, FaceError):
            texts += [pickle.dumps(error).decode("latin-1"), repr(vars(copy.deepcopy(error)))]
        pending += [other for other in (error.__cause__, error.__context__) if other is not None]
    return texts


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def everything_alive():
    """Return a function that returns the repr and the str of every object of this package that is alive."""

    def ours():
        return [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("face_async")]

    old = ours()
    gc.freeze()  # from here on the collector lists new objects only, of which there are much fewer
    yield lambda: [say(thing) for thing in [*old, *ours()] for say in (repr, str)]
    gc.unfreeze()


def leaks(said: list[str], signatures: list[str]) -> list[str]:
    """Return what tells a secret."""
    secrets = [KEY, SHOWN, *signatures]
    return [text for text in said for secret in secrets if secret in text]


async def test_no_failure_tells_a_secret(stack: Stack, caplog, seen, everything_alive):
    """However a call fails: not in messages, attributes, tracebacks, pickles, copies, events, spans or any log."""
    caplog.set_level(logging.DEBUG)
    codes = [answer(envelope({"session_id": "s"}, code, "said")) for code in (*CODES, 999)]
    failures = [*(fault.behavior() for fault in FAULTS if not fault.costly), *codes]
    said, events = [], []
    with RawServer(failures) as server:
        async with FaceSession(
            "1",
            "b",
            CREDENTIALS,
            base_url=server.url,
            timeout=PATIENCE,
            retry=ONCE,
            http=stack.http,
            on_attempt=events.append,
            telemetry=seen.telemetry,
        ) as session:
            for _ in failures:
                with pytest.raises((CallError, ServiceError)) as caught:
                    await session.identify("g", PICTURE)
                said += everything_said_by(caught.value)
            said += everything_alive()
    said += [caplog.text, *(repr(vars(record)) for record in caplog.records)]
    said += [repr(event) for event in events] + [str(event) for event in events]
    said += [span.to_json() for span in seen.spans] + [seen.everything_measured]
    signatures = [request.header("Authorization") for request in server.requests]
    assert len(events) == len(seen.spans) == len(failures)
    assert all(PICTURE in request.body for request in server.requests)
    assert len(signatures) > len(failures) - 3
    assert [] == leaks(said, signatures)


class Peeking(httpx.AsyncBaseTransport):
    """Answers by endpoint, and looks around in the middle of a call, the first time that an endpoint is called."""

    def __init__(self, answers, everything_alive=list):
        self.answers = answers
        self.everything_alive = everything_alive
        self.said = []
        self.signatures = []
        self.known = set()

    async def handle_async_request(self, request):
        self.signatures.append(request.headers["authorization"])
        name = request.url.path.rpartition("/")[2]
        if name not in self.known:
            self.known.add(name)
            self.said += self.everything_alive()
        async for _ in request.stream:
            pass
        status, content = self.answers[name]
        return httpx.Response(status, content=content)


@on_httpx
async def test_nothing_of_ours_shows_a_secret_in_a_call_or_after_it(caplog, seen, everything_alive):
    """Sessions, copies, calls, bodies, pictures and results: whatever is alive has a repr that may be seen.

    Neither does what is logged and measured of calls that succeed, are retried, and are looked at.
    """
    caplog.set_level(logging.DEBUG)
    answers = {name: (200, content) for name, content in ANSWERS.items()}
    peeking = Peeking(answers, everything_alive)
    alive, said = [], []
    async with FaceSession(
        "1", "b", CREDENTIALS, transport=peeking, retry=AT_ONCE, on_attempt=alive.append, telemetry=seen.telemetry
    ) as session:
        other = session.with_options(deadline=5)
        for name, call in CALLS.items():
            pictures = [ImageFile(PICTURE, name="a.jpg"), io.BytesIO(PICTURE)][
                : {"addface": 2, "compare": 2}.get(name, 1)
            ]
            alive += [await call(session, pictures), await call(other, pictures[:1] * len(pictures))]
        for name in ("newperson", "addface"):
            peeking.answers = {**answers, name: (503, b"")}  # the outcome is looked for
            peeking.known.clear()
            with pytest.raises(CallError) as caught:
                await CALLS[name](session, [PICTURE] * (1 + (name == "addface")))
            said += everything_said_by(caught.value)
        peeking.answers = answers
        for bulk in (
            session.add_faces([("person0", PICTURE)] * 2),
            session.new_persons([NewPerson("person0", ["qq"], PICTURE)]),
            session.identify_many([PICTURE], "qq"),
            session.verify_many([("person0", PICTURE)]),
        ):
            peeking.known.clear()
            async with bulk as outcomes:
                alive += await outcomes.collect()
        alive.append(await session.identify_in_groups(PICTURE, ["qq"]))
        said += everything_alive()
        said += [repr(thing) for thing in (session, other, session.stats, CREDENTIALS, alive)]
    said += [caplog.text, *(repr(vars(record)) for record in caplog.records)]
    said += [span.to_json() for span in seen.spans] + [seen.everything_measured]
    assert "looking does not tell" in caplog.text
    assert peeking.said
    assert any("CallInFlight(" in text for text in peeking.said)
    assert any("Doubt(" in text for text in peeking.said)
    assert any("Job(" in text for text in peeking.said)
    assert any("AddFaceResult(" in text for text in said)
    assert [] == leaks(peeking.said + said, peeking.signatures)


REFUSED = {
    "an id with a space": (ValueError, lambda session: session.identify("a b", PICTURE)),
    "a GIF": (ImageRefusedError, lambda session: session.identify("g", b"GIF89a" + PICTURE)),
    "too large": (RequestTooLargeError, lambda session: session.identify("g", PICTURE * 100_000)),
    "pictures and URLs": (ValueError, lambda session: session.add_face("p", [PICTURE, "http://x/"])),
    "not a list": (TypeError, lambda session: session.add_face("p", PICTURE)),
    "a text file": (TypeError, lambda session: session.identify("g", io.StringIO(SHOWN))),
    "a media type": (ValueError, lambda _: ImageFile(PICTURE, media_type="a\r\nb")),
    "a key with a line break": (ValueError, lambda _: Credentials("AKIDcanary", f"{KEY}\n")),
}


@on_httpx
@pytest.mark.parametrize("name", REFUSED)
async def test_no_refusal_repeats_what_it_refuses(name):
    """Pictures and keys that cannot be used are described, not shown."""
    kind, act = REFUSED[name]
    async with FaceSession("1", "b", CREDENTIALS, transport=Peeking({})) as session:
        with pytest.raises(kind) as caught:
            await act(session)
    assert [] == leaks(everything_said_by(caught.value), [])


@on_httpx
async def test_local_variables_tell_of_pictures_but_not_of_keys():
    """Who asks a traceback for all local variables sees the arguments of the verbs; key and signature are not there."""
    peeking = Peeking({"identify": (502, b"")})
    async with FaceSession("1", "b", CREDENTIALS, transport=peeking, retry=ONCE) as session:
        with pytest.raises(CallError) as caught:
            await session.identify("g", PICTURE)
    said = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert SHOWN in said
    assert [] == [secret for secret in (KEY, *peeking.signatures) if secret in said]
