"""A server that counts, and the environment that leads every worker to it."""

from __future__ import annotations

import pytest
from fleetkit import environment_of, metered_server

from face_async import Throttle
from face_async.fleet import Connection


@pytest.fixture
def meter():
    with metered_server() as running:
        yield running


@pytest.fixture
def connection(meter, monkeypatch):
    for name, value in environment_of(meter.base_url).items():
        monkeypatch.setenv(name, value)
    return Connection.from_env()


@pytest.fixture
def budget():
    return Throttle(max_concurrency=12)
