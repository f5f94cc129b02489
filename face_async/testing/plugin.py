"""The fixtures ``face_server`` and ``face_session``.

pytest imports this module in every run of an environment that has this package, so by itself it imports pytest alone
until a test asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from face_async.session import FaceSession
    from face_async.testing import FaceServer


@pytest.fixture
def face_server() -> Generator[FaceServer]:
    """A local server for one test, in process and in memory (:class:`face_async.testing.FaceServer`)."""
    from face_async.testing import FaceServer  # noqa: PLC0415 - see above

    with FaceServer() as server:
        yield server


@pytest.fixture
def face_session(face_server: FaceServer) -> FaceSession:
    """A session on ``face_server``, in process; ``face_server.session(...)`` makes one with other options."""
    return face_server.session()
