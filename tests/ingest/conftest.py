"""A server's store, a folder of people, and a run on them with a journal of its own."""

from __future__ import annotations

from functools import partial

import pytest
from ingestkit import write_people

from face_async.ingest import ingest
from face_async.server import Store


@pytest.fixture
def store():
    with Store() as opened:
        yield opened


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "enroll.journal"


@pytest.fixture
def people(tmp_path):
    """Return a folder of three persons with four pictures each."""
    return write_people(tmp_path / "people", 3, 4)


@pytest.fixture
def run_on(journal):
    """Return a function that makes a run with this test's journal."""
    return partial(ingest, journal=journal, group_ids=["staff"], probe_delay=0)
