"""The event loops, HTTP libraries and parsers that a session may stand on, as a fixture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from doubles import CREDENTIALS
from raw_server import RawServer

from face_async import FaceSession, RetryPolicy


@dataclass(frozen=True)
class Stack:
    """An event loop, and what the session stands on.

    Attributes:
        loop: The name of the event loop.
        http: The session's ``http``.
        parser: What reads answers under ``http="asyncio"``.
    """

    loop: str
    http: str
    parser: str = ""

    def __str__(self) -> str:
        """Name the stack in a test's id."""
        return "-".join(filter(None, [self.loop, self.http, self.parser]))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Leave the parser no choice."""
        with pytest.MonkeyPatch.context() as patch:
            if self.parser == "h11":
                patch.setitem(sys.modules, "httptools", None)
            yield


STACKS = [
    pytest.param(
        stack,
        id=str(stack),
        marks=pytest.mark.skipif(
            stack.parser == "httptools" and not importlib.util.find_spec("httptools"), reason="no extra"
        ),
    )
    for stack in (
        Stack("asyncio", "httpx"),
        Stack("trio", "httpx"),
        Stack("asyncio", "asyncio", "h11"),
        Stack("asyncio", "asyncio", "httptools"),
        Stack("asyncio", "httpx2"),
        Stack("trio", "httpx2"),
    )
]
on_httpx = pytest.mark.parametrize("stack", STACKS[:2], indirect=True)
on_asyncio = pytest.mark.parametrize("stack", STACKS[2:4], indirect=True)


# Fixtures, for the modules whose tests run on every stack: they import these three, whatever their names.


@pytest.fixture(name="stack", scope="module", params=STACKS)
def stack_of_test(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The loop and the library of a test."""
    with request.param.in_use():
        yield request.param


@pytest.fixture(name="anyio_backend", scope="module")
def loop_of_stack(stack: Stack) -> str:
    """Run the test on the stack's loop."""
    return stack.loop


@pytest.fixture(name="session_at")
def session_of_stack(stack: Stack) -> Callable[..., FaceSession]:
    """Return a function that opens a session on the stack, at a server or a base URL."""

    def session_at(server: RawServer | str, **options: object) -> FaceSession:
        options = {"retry": RetryPolicy(base_delay=0), "http": stack.http, **options}
        base_url = server if isinstance(server, str) else server.url
        return FaceSession("123456", "test", CREDENTIALS, base_url=base_url, **options)

    return session_at
