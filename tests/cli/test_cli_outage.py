"""Commands with many pictures, while the service is away."""

from __future__ import annotations

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from face_async.bulk import outage
from face_async.cli.exits import Exit
from face_async.portraits import draw_portrait
from face_async.testing import FaceServer

PICTURES = 12


@pytest.fixture
def server(monkeypatch):
    """A server on a socket that knows one person, and the environment that leads to it."""
    monkeypatch.setattr(outage, "PROBE_DELAY", 0)
    with (
        FaceServer() as server,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(server.serve()) as base_url,
    ):
        portal.call(server.session().new_person, "ada", ["staff"], draw_portrait(0))
        for name, value in server.environment(base_url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def folder(tmp_path):
    for shot in range(PICTURES):
        (tmp_path / "probes" / f"{shot:02}.jpg").parent.mkdir(exist_ok=True)
        (tmp_path / "probes" / f"{shot:02}.jpg").write_bytes(draw_portrait(0))
    return tmp_path / "probes"


def outage_after(count, server):
    """Break the connections of all requests after the first ones: as many as some calls take, and of two probes."""
    server.faults.add("identify", delay=0.001, times=count)
    server.faults.add("identify", drop_request=True, times=7)
    server.faults.add("getgroupids", drop_request=True, times=2)


@pytest.mark.parametrize("groups", [["staff"], ["staff", "guests"]])
def test_identify_waits_for_a_service_that_was_there(say, server, folder, groups):
    """It says what it waits for, and no picture is lost."""
    anyio.run(server.session().new_person, "grace", ["guests"], draw_portrait(1))
    outage_after(2, server)
    options = [word for group in groups for word in ("--group", group)]
    said = say("identify", folder, *options, "--threshold", "60", "--at-once", "1", "--json")
    assert (said.code, said.out.count('"recognized"')) == (Exit.OK, PICTURES)
    assert "waiting for the service: " in said.err
    assert 3 <= len(server.calls("getgroupids")) <= 4


def test_identify_fails_if_it_is_told_to(say, server, folder):
    outage_after(2, server)
    said = say("identify", folder, "--group", "staff", "--threshold", "60", "--at-once", "1", "--on-outage", "fail")
    assert said.code == Exit.NO_ANSWER
    assert "2 failed" in said.err
    assert "waiting" not in said.err
    assert [] == server.calls("getgroupids")


def test_identify_does_not_wait_for_a_service_that_was_never_there(say, server, folder, monkeypatch):
    """Nearly always its address is wrong; that is said, and nothing hangs."""
    monkeypatch.setenv("FACE_ASYNC_BASE_URL", "http://127.0.0.1:1")
    said = say("identify", folder, "--group", "staff")
    assert said.code == Exit.NO_ANSWER
    assert "waiting" not in said.err


def test_an_outage_is_met_in_one_of_two_ways(say, folder):
    said = say("identify", folder, "--group", "staff", "--on-outage", "hope")
    assert said.code == Exit.USAGE
    assert "'hope'" in said.err
