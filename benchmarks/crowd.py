"""A crowd of this project's own sessions, with their default settings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from calls import Calls
from clients import APPID, BUCKET, GROUP, SECRET_ID, SECRET_KEY

from face_async import Credentials, FaceError, FaceSession

if TYPE_CHECKING:
    from served import Server

CALLS, LEAVING = 40, 60
PATIENCE = 1.0
"""Seconds after which callers give up."""


async def measure_crowd(server: Server, picture: bytes, item: str, sessions: int) -> dict[str, Any]:
    """Return how many of 40 identifications a session failed, and how long the call after 60 abandoned ones took."""
    began = time.perf_counter()
    batches = [one_session(server.base_url, picture, first * CALLS) for first in range(sessions)]
    failed = sum(await asyncio.gather(*batches))
    seconds = time.perf_counter() - began
    client = Calls(server.base_url, LEAVING)
    await client.open()
    await asyncio.gather(*(given_up(client, item) for _ in range(LEAVING)))
    patient = Calls(server.base_url, 1)
    await patient.open()
    began = time.perf_counter()
    await patient.identify(item)
    return {
        "calls": sessions * CALLS,
        "failed": failed,
        "seconds": seconds,
        "next_s": time.perf_counter() - began,
    }


async def one_session(base_url: str, picture: bytes, first: int) -> int:
    """Return how many of a session's identifications failed."""
    async with FaceSession(APPID, BUCKET, Credentials(SECRET_ID, SECRET_KEY), base_url=base_url) as session:

        async def identify(number: int) -> bool:
            try:
                await session.identify(GROUP, picture + str(number).encode())
            except FaceError:
                return False
            return True

        done = await asyncio.gather(*(identify(first + number) for number in range(CALLS)))
    return done.count(False)


async def given_up(client: Calls, item: str) -> None:
    """Make a call, and hang up before it is answered."""
    with contextlib.suppress(OSError, ValueError):  # too late, or refused before
        await asyncio.wait_for(client.identify(item), PATIENCE)
