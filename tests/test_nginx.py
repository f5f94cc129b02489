"""The client behind a real nginx, which ends connections when it likes."""

from __future__ import annotations

import pytest
from doubles import envelope
from nginx import nginx_for_tests  # noqa: F401 - the fixture goes by another name
from raw_server import RawServer, answer
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures go by other names

pytestmark = [pytest.mark.anyio, pytest.mark.external("nginx")]

INFO = envelope({"person_id": "p", "person_name": "Ada", "face_ids": [], "group_ids": [], "tag": ""})


async def test_a_connection_that_nginx_ends_after_some_requests_costs_no_try(session_at, start_nginx):
    """Its last answer says so: nine calls, three a connection, no retry."""
    with RawServer([answer(INFO)] * 9) as server:
        nginx = start_nginx(server.url, "keepalive_requests 3;")
        async with session_at(nginx.url) as session:
            for _ in range(9):
                await session.get_info("p")
            assert session.stats.retries == 0
    nginx.stop()
    connections = [request.connection for request in nginx.requests]
    assert [connections.count(connection) for connection in dict.fromkeys(connections)] == [3, 3, 3]
