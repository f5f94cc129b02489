"""The server in several processes on one port."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import socket
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from attrs import define, evolve, field, frozen

from face_async.server.background import describe, listen, serve_on
from face_async.server.bounds.connections import ConnectionLimits, raise_file_limit
from face_async.server.operations import METRICS_FOLDER_VARIABLE
from face_async.server.storage.galleries import default_memory
from face_async.server.storage.sqlite.database import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from types import FrameType

    from face_async.server.background import Certificate
    from face_async.server.settings import ServerSettings

logger = logging.getLogger("face_async.server")

_SPAWN = multiprocessing.get_context("spawn")  # threads and connections to a database do not survive a fork
_SHORT_LIFE_SECONDS = 5.0
_PAUSE_SECONDS = 1.0  # before a worker that lived for a short time is replaced
_STOP_SECONDS = 10.0  # for workers that were told to stop


def serve_workers(
    settings: ServerSettings,
    *,
    workers: int,
    host: str = "127.0.0.1",
    port: int = 8600,
    limits: ConnectionLimits = ConnectionLimits(),
    certificate: Certificate | None = None,
    on_ready: Callable[[str], object] | None = None,
    on_start: Callable[[], object] | None = None,
    on_link: Callable[[str], object] | None = None,
) -> None:
    """Serve in several processes until SIGINT or SIGTERM, then return; to be called in the main thread.

    SIGHUP, as of a terminal that is closed, counts as SIGTERM, unless it is handled or ignored.

    Each worker has a listening socket of its own, among which the system spreads new connections. A worker that ends is
    replaced, and the one in its place takes over its socket: connections that were not accepted yet only wait, those
    that were break. If this process is killed, its workers end by themselves.

    Args:
        settings: What every worker serves; the memory for galleries is divided among them.
        workers: How many processes.
        host: Where to listen; loopback unless told otherwise.
        port: The port; 0 takes a free one.
        limits: What connections may take, in each worker.
        certificate: What to speak https with; None for http.
        on_ready: Called with the base URL once all workers accept requests.
        on_start: Called first of all in every worker, such as to configure logging.
        on_link: Called with each link that opens the page of the settings: with the first one after ``on_ready``, with
            the others in the worker where the one before was used.

    Raises:
        OSError: The address cannot be listened on, or the certificate or its key cannot be used.
        StoreError: The storage cannot be used.
        ValueError: The settings cannot be used; such as a database in memory, which several processes cannot share.
    """
    if workers > 1 and settings.database == MEMORY:
        raise ValueError(f"{workers} processes would have a database in memory each: name a file, or use 1 process")
    memory = default_memory() if settings.gallery_memory is None else settings.gallery_memory
    settings = evolve(settings, gallery_memory=memory // workers)
    served = _Served(settings, limits, certificate, on_start, on_link)
    with (
        _listeners(host, port, workers) as listeners,
        _shared_metrics(),
        contextlib.suppress(KeyboardInterrupt),
        _interruptible(),
    ):
        crew = [_Worker(number, served, listener) for number, listener in enumerate(listeners, 1)]
        try:
            for worker in crew:
                worker.start()
            for worker in crew:
                worker.wait_until_ready()
            base_url = describe(listeners[0], certificate).base_url
            if on_ready is not None:
                on_ready(base_url)
            if settings.page and on_link:
                on_link(f"{base_url}{settings.page.link}")
            while True:
                _replace_dead(crew)
        finally:
            with _undisturbed():
                _stop(crew)
                settings.empty_log()


@frozen
class _Served:
    """What every worker is given; the attributes are arguments of :func:`serve_workers`."""

    settings: ServerSettings
    limits: ConnectionLimits
    certificate: Certificate | None
    on_start: Callable[[], object] | None
    on_link: Callable[[str], object] | None

    def follow_links(self, base_url: str) -> None:
        """Tell every link of the page that follows one which is used in this process."""
        page, tell = self.settings.page, self.on_link
        if page and tell:
            page.on_link = lambda path: tell(f"{base_url}{path}")


@define(eq=False)
class _Worker:
    """A place for a process, and the process in it."""

    number: int
    served: _Served
    listener: socket.socket
    process: SpawnProcess | None = None
    started: float = 0.0
    ready: Connection | None = field(default=None)

    def start(self) -> None:
        multiprocessing.resource_tracker.ensure_running()  # it lets signals through once it has started
        with _undisturbed():
            pipe: Any = _SPAWN.Pipe(duplex=False)  # its type depends on the platform
            self.ready, theirs = pipe
            with theirs:
                process = _SPAWN.Process(
                    target=_work, args=(self.served, self.listener, theirs), name=f"face_async worker {self.number}"
                )
                process.start()
            self.process, self.started = process, time.monotonic()

    def wait_until_ready(self) -> None:
        """Wait until the worker accepts requests; raise the error that it ended with."""
        assert self.ready is not None  # noqa: S101 - for the type checker: it was started
        try:
            error = cast("Exception | None", self.ready.recv())
        except EOFError:
            raise ChildProcessError(f"worker {self.number} ended before it was ready") from None
        if error is not None:
            raise error

    def replace(self) -> None:
        """Start a process in the place of one that ended."""
        assert self.process is not None  # noqa: S101 - as above
        assert self.ready is not None  # noqa: S101
        reason: object = f"by exit code {self.process.exitcode}"
        with contextlib.suppress(EOFError):
            if self.ready.poll():
                reason = self.ready.recv() or reason
        logger.error("worker %d (process %d) ended: %s; starting another", self.number, self.process.pid or 0, reason)
        if time.monotonic() - self.started < _SHORT_LIFE_SECONDS:
            time.sleep(_PAUSE_SECONDS)
        self.ready.close()
        self.process = None
        self.start()


def _replace_dead(crew: Sequence[_Worker]) -> None:
    sentinels = {worker.process.sentinel: worker for worker in crew if worker.process is not None}
    for sentinel in multiprocessing.connection.wait(list(sentinels)):
        worker = sentinels[cast("int", sentinel)]
        if worker.process is not None:
            worker.process.join()
        worker.replace()


def _stop(crew: Sequence[_Worker]) -> None:
    running = [worker.process for worker in crew if worker.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in running:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _work(served: _Served, listener: socket.socket, ready: Connection) -> None:
    """Serve, as a process of its own.

    Signals to stop reach it only while it serves: it begins with them blocked, so that those that come early wait until
    uvicorn listens for them, and whatever comes later does not keep it from closing what it opened.
    """
    stop_signals = _stop_signals()

    def tell_ready() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals)
        _tell(ready, None)

    for number in stop_signals:
        signal.signal(number, _do_nothing)  # SIG_IGN would lose one that waits
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if served.on_start is not None:
        served.on_start()
    raise_file_limit()
    served.follow_links(describe(listener, served.certificate).base_url)
    try:
        # What the parent has read may be older than the file: a key that was taken out would be good again.
        with served.settings.reread().serving() as app, listener:
            serve_on(app, listener, served.limits, served.certificate, tell_ready)
    except Exception as error:  # noqa: BLE001 - the process that started this one tells of it
        _tell(ready, error)
        raise SystemExit(1) from None


def _tell(ready: Connection, error: Exception | None) -> None:
    with contextlib.suppress(OSError):  # the process that started this one has ended, as this one is about to
        ready.send(error)


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a server; SIGHUP unless a program handles it itself, or nohup has it ignored."""
    is_ours = signal.getsignal(signal.SIGHUP) in {signal.SIG_DFL, signal.default_int_handler}
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if is_ours else [])]


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _shared_metrics() -> Generator[None]:
    """Give the workers a folder in which each keeps its metrics, so that all tell the sums, unless they have one."""
    if os.environ.get(METRICS_FOLDER_VARIABLE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="face_async_metrics_") as folder:
        os.environ[METRICS_FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[METRICS_FOLDER_VARIABLE]


@contextlib.contextmanager
def _listeners(host: str, port: int, count: int) -> Generator[list[socket.socket]]:
    # Sockets that share a port would share it with another server's, too; one that does not share it finds out. It
    # never listens, so that nobody is told of a server that is not there a moment later.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, port))
        port = describe(alone).port
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(listen(host, port, shared=True)) for _ in range(count)]


@contextlib.contextmanager
def _undisturbed() -> Generator[None]:
    """Let signals to stop wait; a process that is started meanwhile begins with them waiting."""
    waiting: list[int] = []
    numbers = _stop_signals()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    # That holds for this thread and new processes: a library's thread may take a signal, which is handled here then.
    handlers = {number: signal.signal(number, lambda number, _: waiting.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        if waiting:
            signal.raise_signal(waiting[0])


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    # Ctrl-C as well: who starts a program in the background of a script has it ignored.
    previous = {number: signal.signal(number, signal.default_int_handler) for number in _stop_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
