"""Worker processes on this machine: one that dies costs only its task, and none outlives the process that began it.

A worker reads tasks from a pipe and writes results into another one. The system closes the pipe when the process that
holds its other end dies, whatever it dies of; then the worker ends, too.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import IO, TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_Task: TypeAlias = "tuple[Callable[..., object], tuple[object, ...], dict[str, object]]"
_SECONDS_TO_END = 5.0


class WorkerLostError(BrokenExecutor):
    """The worker has died that worked on a task; the task may have had its effects, and the executor goes on."""


class ProcessExecutor(Executor):
    """Executes tasks in worker processes; when one dies, its task fails and the next one gets another process.

    Unlike ``concurrent.futures.ProcessPoolExecutor``, which gives up everything when one worker dies. Functions and
    arguments are pickled; functions are found by their modules' names.

    Args:
        workers: How many processes, 1 or more. Each is begun when there is work for it.

    Raises:
        ValueError: There is no worker.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers must be 1 or more, not {workers}")
        self._waiting: queue.SimpleQueue[tuple[Future[object], bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._workers = [_WorkerProcess() for _ in range(workers)]
        self._threads = [threading.Thread(target=self._serve, args=(worker,), daemon=True) for worker in self._workers]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Execute ``fn(*args, **kwargs)`` in a worker; return its future.

        Raises:
            RuntimeError: The executor was shut down.
            pickle.PicklingError: The task cannot be sent to a worker.
        """
        future: Future[T] = Future()
        task = pickle.dumps((fn, args, kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor was shut down")
            self._waiting.put((cast("Future[object]", future), task))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in Executor
        """End the workers once all tasks are done; with ``cancel_futures`` at once, whatever they are doing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._waiting.put(None)
        if cancel_futures:
            self._cancel_waiting()
            for worker in self._workers:
                worker.kill()
        if wait:
            for thread in self._threads:
                thread.join()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _cancel_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._waiting.get_nowait()
                if waiting is not None:
                    waiting[0].cancel()
        for _ in self._threads:
            self._waiting.put(None)

    def _serve(self, worker: _WorkerProcess) -> None:
        # Ctrl-C in a terminal goes to every process there is: workers begin with this thread's mask, and so it cannot
        # reach one before it ignores it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while (waiting := self._waiting.get()) is not None:
                future, task = waiting
                if future.set_running_or_notify_cancel():
                    self._execute(worker, future, task)
        finally:
            worker.end()

    def _execute(self, worker: _WorkerProcess, future: Future[object], task: bytes) -> None:
        try:
            done, value = worker.do(task)
        except (OSError, EOFError, pickle.UnpicklingError):
            worker.kill()
            future.set_exception(WorkerLostError("the worker that did this task has died"))
        else:
            if done:
                future.set_result(value)
            else:
                future.set_exception(cast("BaseException", value))


class _WorkerProcess:
    """One worker process at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def do(self, task: bytes) -> tuple[bool, object]:
        """Return whether a task was done, and its result or error; raises an error if the process dies."""
        process = self._begun()
        requests, replies = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        pickle.dump(task, requests)  # as bytes: one that cannot be read there fails, and kills no worker
        requests.flush()
        return cast("tuple[bool, object]", pickle.load(replies))  # noqa: S301 - of our own process

    def _begun(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._close()
                command = [sys.executable, "-m", "face_async.fleet.engines.worker"]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
            return self._process

    def kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()  # or the next task would be sent to a process that is about to end

    def end(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            cast("IO[bytes]", self._process.stdin).close()  # by which it ends
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        cast("IO[bytes]", self._process.stdout).close()
        self._process = None


def work() -> None:
    """Execute tasks until the pipe that they come from is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, who ends the workers
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task prints is no result
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            fn, args, kwargs = cast("_Task", pickle.loads(task))  # noqa: S301 - of the process that began this one
            reply = pickle.dumps((True, fn(*args, **kwargs)))
        except Exception as error:  # noqa: BLE001 - it is the task's result
            reply = _as_reply(error)
        with contextlib.suppress(BrokenPipeError):  # the driver has ended: _read_tasks ends this process
            replies.write(reply)
            replies.flush()


def _read_tasks(tasks: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - of the process that began this one
    finally:
        os._exit(0)  # the driver has ended, and with it all reason to go on; locks and pipes end with the process


def _as_reply(error: Exception) -> bytes:
    try:
        reply = pickle.dumps((False, error))
        pickle.loads(reply)  # noqa: S301 - what was pickled the line above
    except Exception:  # noqa: BLE001 - whatever a foreign class does
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return reply
