"""A program that is tested with pytest-asyncio uses a session as any other."""

from __future__ import annotations

import asyncio

import pytest
from doubles import envelope, session_on


@pytest.mark.asyncio
async def test_calls_gathered_by_asyncio_share_one_session():
    """asyncio.gather over one session gives every call its own result."""
    session, network = session_on(envelope({"group_ids": ["a"]}))

    found = await asyncio.gather(*(session.get_group_ids() for _ in range(10)))

    assert [["a"]] * 10 == found
    assert 10 == len(network.sent)


@pytest.mark.asyncio
async def test_wait_for_cancels_a_call():
    """A call that is cancelled from outside leaves as the cancellation, and the session goes on."""
    session, _ = session_on(envelope({"group_ids": ["a"]}))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(session.get_group_ids(), timeout=0)

    assert ["a"] == await session.get_group_ids()
