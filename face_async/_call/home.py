"""The process and the event loop that a session belongs to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from anyio.lowlevel import EventLoopToken


class Home:
    """The process and the event loop in which something is first used, and the only ones in which it may be used.

    A connection that a forked child shares with its parent carries the bytes of both, a nonce that both draw is a
    replay, and an event of another loop never wakes anyone: so whatever has such things is used in one place.

    Args:
        owner: What belongs there, in a word or two.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._first: dict[None, tuple[int, EventLoopToken]] = {}

    def enter(self) -> None:
        """Note where it is used for the first time, and see to it that it is used nowhere else.

        Raises:
            RuntimeError: It belongs to another process or event loop.
        """
        pid, first = os.getpid(), self._first.get(None)
        if first is not None and first[0] != pid:  # before its loop is asked for, which may be none
            raise RuntimeError(
                f"the {self._owner} belongs to the process that this one was forked from: "
                "open one in each process, after the fork"
            )
        here = pid, current_token()
        # In one step, also where threads with loops of their own compete.
        if self._first.setdefault(None, here) != here:
            raise RuntimeError(
                f"the {self._owner} belongs to another event loop: open one in each event loop, which is one in each "
                "asyncio.run() and in each thread that runs a loop; other threads reach its loop by anyio.from_thread"
            )

    @property
    def is_this_process(self) -> bool:
        """Whether it was used, and in this process."""
        return any(home == os.getpid() for home, _ in self._first.values())
