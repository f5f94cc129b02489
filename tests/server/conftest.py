"""A storage of each kind, and a caller of the application over it on the test's own event loop."""

from __future__ import annotations

import functools

import pytest
from postgresql import PostgresServer
from serverkit import calling

from face_async.server import open_storage

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.external("postgres"))]


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=KINDS)
def kind(request):
    """The kind of a storage: each test that asks for a storage meets both."""
    return request.param


@pytest.fixture
def database(kind, request, tmp_path):
    """The name of a database that can be opened several times: a path, or a URL."""
    return str(tmp_path / "faces.db") if kind == "sqlite" else request.getfixturevalue("postgres").url()


@pytest.fixture
def open_one(database):
    """Open a storage on that database, which other threads and processes may open, too."""
    return functools.partial(open_storage, database)


@pytest.fixture
def store(kind, request):
    """An empty storage."""
    with open_storage(":memory:" if kind == "sqlite" else request.getfixturevalue("postgres").url()) as opened:
        yield opened


@pytest.fixture
async def caller(store, anyio_backend):
    async with calling(store) as ready:
        yield ready
