"""Worker processes: one that dies costs its task only, and none outlives whoever began it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
from timing import PATIENCE

from face_async.fleet import ProcessExecutor, WorkerLostError, open_engine

DRIVER = """
import sys, time
from face_async.fleet import ProcessExecutor
executor = ProcessExecutor(2)
tasks = [executor.submit(time.sleep, 1000) for _ in range(2)]
while len(executor.pids) < 2:
    time.sleep(0.05)
print(*executor.pids, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def executor():
    with ProcessExecutor(2) as opened:
        yield opened


def test_results_come_from_other_processes(executor):
    pids = {executor.submit(os.getpid).result() for _ in range(5)}
    assert pids
    assert os.getpid() not in pids
    assert pids <= set(executor.pids)


def test_what_a_task_raises_is_raised_here(executor):
    with pytest.raises(ValueError, match="'x'"):
        executor.submit(int, "x").result()
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        executor.submit(import_module, "no_such").result()
    with pytest.raises(TypeError, match=r"_thread\.lock"):
        executor.submit(threading.Lock).result()  # a result that cannot be pickled is an error of the task
    assert 3 == executor.submit(len, "abc").result()


def test_a_task_that_a_worker_cannot_read_is_an_error_and_kills_nobody(executor):
    pid = executor.submit(os.getpid).result()
    with pytest.raises((ModuleNotFoundError, AttributeError)):
        executor.submit(_runs, 1).result()  # of this module, which workers cannot import
    assert pid in executor.pids


def test_a_task_that_cannot_be_sent_is_refused_at_once(executor):
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        executor.submit(lambda: None)


def test_a_worker_that_dies_costs_its_task_only(executor):
    other = executor.submit(time.sleep, 2)
    with pytest.raises(WorkerLostError, match="has died"):
        executor.submit(os._exit, 1).result()
    assert 3 == executor.submit(len, "abc").result()
    assert other.result() is None


def test_a_task_that_comes_right_after_a_death_finds_another_worker():
    with ProcessExecutor(1) as single:
        for _ in range(5):
            lost = single.submit(os._exit, 1)
            assert 3 == single.submit(len, "abc").result()
            assert isinstance(lost.exception(), WorkerLostError)


def test_what_a_task_prints_is_no_result(executor):
    assert executor.submit(print, "hello").result() is None


def test_an_interrupt_is_the_drivers_from_the_first_moment_on(capfd):
    """A terminal sends it to all processes: one that begins is neither ended by it nor prints anything."""
    with ProcessExecutor(1) as executor:
        future = executor.submit(len, "abc")
        while not executor.pids:
            time.sleep(0.001)
        [pid] = executor.pids
        while not future.done():
            os.kill(pid, signal.SIGINT)
            time.sleep(0.01)
        assert 3 == future.result()
        assert [pid] == executor.pids
    assert ("", "") == capfd.readouterr()


def test_workers_end_with_their_executor():
    executor = ProcessExecutor(2)
    executor.submit(len, "").result()
    pids = executor.pids
    executor.shutdown()
    assert not any(map(_runs, pids))
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(len, "")


def test_shutting_down_at_once_does_not_wait_for_tasks():
    executor = ProcessExecutor(1)
    running, waiting = executor.submit(time.sleep, 1_000), executor.submit(time.sleep, 1_000)
    while not executor.pids:
        time.sleep(0.01)
    executor.shutdown(cancel_futures=True)
    assert isinstance(running.exception(), WorkerLostError)
    assert waiting.cancelled()


def test_no_worker_outlives_its_driver():
    """Killed, the driver can tell nobody: locks and inherited pipes are free all the same, within 5 s."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(pids) == 2
    driver.kill()
    began = time.monotonic()
    driver.communicate(timeout=PATIENCE)  # returns once nobody holds its pipes any more
    while any(map(_runs, pids)):
        time.sleep(0.01)
    assert time.monotonic() - began < 5


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    "cluster", ["", "processes", "processes:", "processes:0", "processes:x", "dask://", "ray://", "spark://host"]
)
def test_a_cluster_that_there_is_not_is_refused(cluster):
    with pytest.raises(ValueError, match="must be processes:N, dask://HOST:PORT or ray://"):
        open_engine(cluster)


def test_an_executor_needs_workers():
    with pytest.raises(ValueError, match="1 or more"):
        ProcessExecutor(0)
