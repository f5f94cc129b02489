"""The stopwatch leaves out nothing but what it is to leave out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from timing import Stopwatch, in_time

pytestmark = pytest.mark.anyio


ALONE = """if True:
    import time
    from timing import Stopwatch

    watch = Stopwatch()
    time.sleep(0.1)
    assert 0.09 <= watch.net <= watch.gross
    watch, started = Stopwatch(), time.thread_time()
    while time.thread_time() - started < 0.1:
        pass
    assert 0.09 <= watch.net <= watch.gross
"""


def test_the_stopwatch_counts_computing_and_waiting_for_time_to_pass():
    """In a process of its own: other threads, if any, may wait for a processor meanwhile."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", ALONE], env=environment, check=True)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel keeps no such accounts")
def test_the_stopwatch_does_not_count_waiting_for_a_processor():
    """Computing 0.2 seconds takes longer beside three others on one processor, but not by the stopwatch."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    others = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(3)]
    try:
        watch, started = Stopwatch(), time.thread_time()
        while time.thread_time() - started < 0.2:
            pass
        gross, net = watch.gross, watch.net
    finally:
        os.sched_setaffinity(0, allowed)
        for other in others:
            other.kill()
            other.wait()
    assert net < 0.3 < gross


async def test_what_does_not_fit_into_a_short_time_gets_a_longer_one():
    tried = []

    async def act(seconds):
        tried.append(seconds)
        assert seconds >= 1

    await in_time(act)
    assert [0.2, 1.0] == tried


async def test_what_fails_in_any_time_fails():
    async def act(_):
        async with anyio.create_task_group():
            pytest.fail("whatever the time")

    with pytest.raises(BaseExceptionGroup):
        await in_time(act)
