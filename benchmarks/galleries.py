"""Identification in large groups: cold, warm, after a write, beside writers, and many at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

from calls import Calls
from fill import group_name
from report import MB, percentile

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from served import Filling, Server

AT_ONCE, WRITERS = 48, 4


async def measure_gallery(server: Server, filling: Filling, item: str, *, calls: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one database: times in ms, memory in MB."""
    client = Calls(server.base_url, 1)
    await client.open()
    groups = [group_name(number) for number in range(filling.groups)]
    cold = [await timed(client.identify_in(group, item)) for group in groups]
    turn = itertools.cycle(groups)
    warm = [await timed(client.identify_in(next(turn), item)) for _ in range(calls)]
    memory = server.resident()
    written: list[float] = []
    for _ in range(calls):
        await client.newperson_in(groups[0], item)
        written.append(await timed(client.identify_in(groups[0], item)))
    beside, rate = await beside_writers(client, groups[0], item, seconds)
    before = server.resident()
    server.forget_peak()
    crowd = (timed(client.identify_in(groups[0], item)) for _ in range(AT_ONCE))
    together = await asyncio.gather(*crowd, return_exceptions=True)
    served = [each for each in together if isinstance(each, float)]
    growth = server.peak() - before
    await client.aclose()
    return {
        "cold_ms": percentile(cold, 50),
        "warm_ms": percentile(warm, 50),
        "warm_p99_ms": percentile(warm, 99),
        "after_write_ms": percentile(written, 50),
        "beside_writers_ms": percentile(beside, 50),
        "newpersons_per_s": rate,
        "at_once_p99_ms": percentile(served, 99),
        "at_once_refused": AT_ONCE - len(served),
        "resident_mb": memory / MB,
        "at_once_growth_mb": growth / MB,
    }


async def beside_writers(client: Calls, group: str, item: str, seconds: float) -> tuple[list[float], float]:
    """Return the times of identifications beside writers into their group, and new persons a second."""
    began, written, times = time.perf_counter(), 0, list[float]()

    async def write() -> None:
        nonlocal written
        while time.perf_counter() - began < seconds:
            await client.newperson_in(group, item)
            written += 1

    async def identify() -> None:
        while time.perf_counter() - began < seconds:
            times.append(await timed(client.identify_in(group, item)))

    await asyncio.gather(identify(), *(write() for _ in range(WRITERS)))
    return times, written / (time.perf_counter() - began)


async def timed(call: Awaitable[object]) -> float:
    """Return the milliseconds that a call takes."""
    began = time.perf_counter()
    await call
    return 1e3 * (time.perf_counter() - began)
