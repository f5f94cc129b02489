"""A store in memory, and a caller of the application over it on the test's own event loop."""

from __future__ import annotations

import pytest
from serverkit import calling

from face_async.server import Store


@pytest.fixture
def store():
    with Store() as opened:
        yield opened


@pytest.fixture
async def caller(store, anyio_backend):
    async with calling(store) as ready:
        yield ready
