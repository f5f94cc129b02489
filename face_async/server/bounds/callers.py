"""Callers who may have gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

T = TypeVar("T")


async def while_connected(request: Request | None, work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of work for a request whose body has been read; it is given up once the caller has gone.

    A worker thread ends what it has begun; nothing is begun after it.

    Args:
        request: The request; None: the work is never given up.
        work: The work.

    Raises:
        ClientDisconnect: The caller has gone.
        Exception: What the work raised.
    """
    if request is None:
        return await work()
    outcome: list[T] = []
    failure: Exception = ClientDisconnect()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            outcome.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below: not as one of a group
            failure = error
        tasks.cancel_scope.cancel()
    if outcome:
        return outcome[0]
    raise failure
