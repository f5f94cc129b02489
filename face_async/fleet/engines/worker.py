"""A worker process, begun by :class:`~face_async.fleet.ProcessExecutor`."""

from face_async.fleet.engines.processes import work

if __name__ == "__main__":
    work()
