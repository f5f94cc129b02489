"""Which fault meets which verb on which stack, for the modules that import ``pytest_generate_tests``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import anyio
import pytest
from doubles import AT_ONCE
from faults import DRIPS, FAULTS, LARGE, STALLS, Fault
from raw_server import Behavior, RawServer, answer
from specification import SAMPLES, Sample
from stacks import STACKS, Stack
from verbs import CALLS, RESULTS, pictures

from face_async import FaceSession, ImageFile
from face_async.endpoints import ENDPOINTS

ATTEMPTS = AT_ONCE.max_attempts


@dataclass(frozen=True)
class Verb:
    """One of the 13, with a picture where one may be sent."""

    sample: Sample
    effect: bool

    def __str__(self) -> str:
        """Name the verb in a test's id."""
        return self.name

    @property
    def name(self) -> str:
        return self.sample.endpoint

    @property
    def good(self) -> Behavior:
        """The specification's own answer."""
        return answer(self.sample.answer)

    @property
    def result(self) -> object:
        """What that answer means."""
        return RESULTS[self.name]

    async def call(self, session: FaceSession, *, large: bool = False) -> object:
        """Make the call of the specification, with pictures of 1.4 MB together if they are to be large."""
        sources = pictures(self.sample)
        if large:
            sources = [ImageFile(LARGE[: len(LARGE) // len(sources)]) for _ in sources]
        return await CALLS[self.name](session, sources)

    @property
    def uploads(self) -> bool:
        """Whether it sends pictures."""
        return self.sample.form == "multipart"


VERBS = {
    endpoint.name: Verb([sample for sample in SAMPLES if sample.endpoint == endpoint.name][-1], endpoint.effect)
    for endpoint in ENDPOINTS
}
EFFECTS = [verb for verb in VERBS.values() if verb.effect]
LOOKS = {
    "newperson": "getinfo",
    "delperson": "getinfo",
    "addface": "getfaceids",
    "delface": "getfaceids",
    "setinfo": "getinfo",
}
"""The first endpoint that is asked what became of an effect."""


@pytest.fixture(name="stack", scope="module")
def stack_in_turn(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The loop and the library of a test."""
    with request.param.in_use():
        yield request.param


TURNS = (0, 2, 1, 3, 2)
"""The stacks in their turn. Its length shares no factor with 13 verbs."""


def in_turn(rows: list, *, first: int, full: bool) -> list:
    """Return every row with a stack, each with the next one; in full, every row on every stack."""
    return [
        pytest.param(*stack.values, *row, marks=stack.marks, id="-".join([stack.id, *map(str, row)]))
        for number, stack in enumerate(STACKS)
        for turn, row in enumerate(rows)
        if full or TURNS[(first + turn) % len(TURNS)] == number
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its part of the table."""
    full = metafunc.config.getoption("full")
    wanted = [name for name in ("fault", "verb", "drip") if name in metafunc.fixturenames]
    effects = "effect" in metafunc.function.__name__
    verbs = EFFECTS if effects else list(VERBS.values())
    rows = {
        (): [()],
        ("fault",): [(fault,) for fault in STALLS],
        ("drip",): [(name,) for name in DRIPS],
        ("verb",): [(verb,) for verb in verbs],
        ("fault", "verb"): [
            (fault, verb)
            for fault in FAULTS
            for verb in (verbs[::4] if fault.costly and not full else verbs)
            if not effects or may_have_its_effect(fault)
        ],
    }[tuple(wanted)]
    first = len(metafunc.function.__name__)  # so that not all tests that are few begin with the same stack
    metafunc.parametrize(["stack", *wanted], in_turn(rows, first=first, full=full), indirect=["stack"], scope="module")


def may_have_its_effect(fault: Fault) -> bool:
    """Return whether the service may do what it was asked for, although this happens."""
    return fault.phase == "A" and fault.whole == 1


def phase(fault: Fault, verb: Verb) -> str:
    """Return whether the request may have been executed."""
    return fault.upload_phase if verb.uploads and fault.upload_phase else fault.phase


def seen(server: RawServer) -> Counter[str]:
    """Return how many whole requests to each endpoint a server has read."""
    return Counter(re.fullmatch(r"POST /face/(\w+) HTTP/1\.1", request.line)[1] for request in server.requests)


async def at_once(act) -> None:
    """Run ``act(verb)`` for all verbs at the same time: they only wait."""
    async with anyio.create_task_group() as tasks:
        for verb in VERBS.values():
            tasks.start_soon(act, verb)
