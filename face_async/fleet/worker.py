"""A worker process: ``python -m face_async.fleet.worker``, begun by :class:`~face_async.fleet.ProcessExecutor`."""

from face_async.fleet.processes import work

if __name__ == "__main__":
    work()
