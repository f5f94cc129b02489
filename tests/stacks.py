"""The event loops and HTTP libraries that a session may stand on, as a fixture."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from doubles import CREDENTIALS
from raw_server import RawServer
from timing import PATIENCE

from face_async import FaceSession, RetryPolicy


@dataclass(frozen=True)
class Stack:
    """An event loop, and the HTTP library that the session stands on; here is all in which the libraries may differ.

    Attributes:
        loop: The name of the event loop.
        http: The name of the library.
    """

    loop: str
    http: str

    @property
    def grace(self) -> float:
        """A ``timeout`` for calls whose connection must be closed soon after them: reqwest keeps it until then."""
        return PATIENCE if self.http == "httpx" else 2.0

    def idle(self, connections: int) -> int:
        """Return what ``stats.connections`` says when so many connections are idle."""
        return connections if self.http == "httpx" else 0


STACKS = [
    pytest.param(
        Stack(loop, http),
        id=f"{loop}-{http}",
        marks=pytest.mark.skipif(http == "reqwest" and not importlib.util.find_spec("pyreqwest"), reason="no extra"),
    )
    for loop, http in [("asyncio", "httpx"), ("trio", "httpx"), ("asyncio", "reqwest")]
]
on_httpx = pytest.mark.parametrize("stack", STACKS[:2], indirect=True)


# Fixtures, for the modules whose tests run on every stack: they import these three, whatever their names.


@pytest.fixture(name="stack", scope="module", params=STACKS)
def stack_of_test(request: pytest.FixtureRequest) -> Stack:
    """The loop and the library of a test."""
    return request.param


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
