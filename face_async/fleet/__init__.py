"""Enrollment and identification on many processes or machines: on Dask, Ray, or any ``concurrent.futures.Executor``.

::

    from face_async import Throttle
    from face_async.fleet import Connection, enroll, open_engine

    if __name__ == "__main__":
        with open_engine("processes:4") as engine:
            summary = enroll(
                "people/", state="run/", connection=Connection.from_env(), executor=engine.executor,
                group_ids=["staff"], shards=64, at_once=4, budget=Throttle(max_concurrency=64, max_rate=200),
            )

The engine only schedules. A run is a folder, its *state*: a source is read once and divided into parts by the hash of
the persons' ids; each part has a journal of its own, and a result once it is done. A part may be begun again anywhere,
by anybody, at any time: whoever does it goes on with its journal, so that the end is the same as if nothing had
happened. The budget is divided among the parts that are under way, so that no call asks anybody for permission.

The key to the service is read from the environment of each worker, and is in no task.
"""

from face_async.fleet.connection import ServiceConnection as Connection
from face_async.fleet.drive import EngineOptions
from face_async.fleet.engines.clusters import FleetEngine, open_engine
from face_async.fleet.engines.processes import ProcessExecutor, WorkerLostError
from face_async.fleet.layout import StateError
from face_async.fleet.run import FleetComparison
from face_async.fleet.run import enroll_source as enroll
from face_async.fleet.run import identify_probes as identify
from face_async.fleet.run import retry_run as retry_failed
from face_async.fleet.run import verify_run as verify
from face_async.fleet.run import write_run_failures as write_failures
from face_async.fleet.shard import PartResult
from face_async.fleet.summary import FleetSummary
from face_async.ingest import ObjectStorageError, OutputError

__all__ = [
    "Connection",
    "EngineOptions",
    "FleetComparison",
    "FleetEngine",
    "FleetSummary",
    "ObjectStorageError",
    "OutputError",
    "PartResult",
    "ProcessExecutor",
    "StateError",
    "WorkerLostError",
    "enroll",
    "identify",
    "open_engine",
    "retry_failed",
    "verify",
    "write_failures",
]
