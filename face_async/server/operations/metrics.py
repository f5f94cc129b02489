"""Metrics for Prometheus: how many calls, how long they took, how many pictures wait, how many faces there are.

====================================== ======================================================================
``face_async_calls_total``             calls answered, by ``endpoint`` and ``code`` (``other``: without a code)
``face_async_call_seconds``            how long they took, by ``endpoint``: a histogram
``face_async_pictures_waiting``        pictures that wait for recognition; what finds no room is code 15 above
``face_async_faces``                   faces in the storage, by ``recognizer``; counted once a minute at most
====================================== ======================================================================

With several processes on one port, each keeps its figures in a file of the folder that ``PROMETHEUS_MULTIPROC_DIR``
names, which must be empty when the first one starts; then each of them tells the sums over all.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType] # it has no annotations
)
from prometheus_client.registry import Collector

from face_async.errors import quoted
from face_async.server.operations import METRICS_FOLDER_VARIABLE
from face_async.server.storage.failures import FailureLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
_COUNT_SECONDS = 60.0  # for which a count of faces is good
_COUNT_SHARE = 100  # and at least so many times as long as it took
_LIVE_FILE = re.compile(r"gauge_live\w*_(\d+)\.db")


class Metrics:
    """The metrics of one application.

    Args:
        count_faces: Returns how many faces there are, by recognizer; it may take long.
    """

    def __init__(self, count_faces: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self._faces = _CountedFaces(count_faces)
        self._calls = Counter("face_async_calls", "Calls answered.", ["endpoint", "code"], registry=self._registry)
        self._seconds = Histogram(
            "face_async_call_seconds",
            "Seconds that calls took.",
            ["endpoint"],
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._waiting = Gauge(
            "face_async_pictures_waiting",
            "Pictures that wait for recognition.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def count(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count a call."""
        self._calls.labels(endpoint, outcome).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def waiting(self, more: int) -> None:
        """Note that so many more pictures wait, or fewer if it is negative."""
        self._waiting.inc(more)

    def page(self) -> bytes:
        """Return all metrics in the text format of Prometheus. It blocks, so call it in a worker thread."""
        registry = self._registry
        if folder := os.environ.get(METRICS_FOLDER_VARIABLE):
            _forget_ended(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call] # it has no annotations
        faces = CollectorRegistry()
        faces.register(self._faces)
        return generate_latest(registry) + generate_latest(faces)


class _CountedFaces(Collector):
    """How many faces there are. Counting reads them all where there are many, so it is not done each time."""

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count
        self._counts: Mapping[str, int] = {}
        self._good_until = 0.0
        self._failures = FailureLog()
        self._lock = threading.Lock()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        began = time.monotonic()
        with self._lock:
            if began >= self._good_until:
                try:
                    self._counts = self._count()
                except Exception as error:  # noqa: BLE001 - the other metrics are wanted then all the more
                    self._failures.log(str(error), f"the faces could not be counted: {quoted(error)}")
                ended = time.monotonic()
                self._good_until = ended + max(_COUNT_SECONDS, _COUNT_SHARE * (ended - began))
        family = GaugeMetricFamily("face_async_faces", "Faces in the storage.", labels=["recognizer"])
        for recognizer, count in self._counts.items():
            family.add_metric([recognizer], count)
        yield family


def _forget_ended(folder: Path) -> None:
    """Remove what processes that have ended count at present; what they have counted before stays in the sums."""
    for pid in {int(found[1]) for path in folder.glob("gauge_live*") if (found := _LIVE_FILE.fullmatch(path.name))}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another process has noticed it, too
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call] # the same
        except PermissionError:
            pass  # it lives, as another user
