"""Engines that run the parts: processes on this machine, Dask, Ray, or any ``concurrent.futures.Executor``."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Executor, Future
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from attrs import define, field

from face_async.errors import quoted
from face_async.fleet.engines.processes import ProcessExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

CLUSTERS = "processes:N, dask://HOST:PORT or ray://HOST:PORT (ray://auto for the cluster of this machine)"
_CONNECTING = 60.0


@define
class FleetEngine:
    """An engine that is open; leaving its block closes what it has opened, and ends what is under way.

    Attributes:
        executor: What runs the parts.
        workers: How many parts it runs at once.
    """

    executor: Executor
    workers: int
    _stack: contextlib.ExitStack = field(factory=contextlib.ExitStack, alias="stack", repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def open_engine(cluster: str) -> FleetEngine:
    """Return an engine.

    Args:
        cluster: ``processes:N`` for N worker processes here, ``dask://host:8786`` for a Dask scheduler (extra
            ``dask``), ``ray://host:10001`` or ``ray://auto`` for a Ray cluster (extra ``ray``).

    Raises:
        ValueError: It is none of these.
        ModuleNotFoundError: The engine's package is missing.
    """
    kind, _, where = cluster.partition(":")
    if kind == "processes" and where.isdecimal() and int(where):
        return _processes(int(where))
    if cluster.startswith("dask://") and cluster != "dask://":
        return _dask("tcp://" + cluster.removeprefix("dask://"))
    if cluster.startswith("ray://") and cluster != "ray://":
        return _ray(None if cluster == "ray://auto" else cluster)
    raise ValueError(f"the cluster must be {CLUSTERS}, not {quoted(cluster)}")


def _processes(workers: int) -> FleetEngine:
    executor = ProcessExecutor(workers)
    stack = contextlib.ExitStack()
    stack.callback(executor.shutdown, cancel_futures=True)
    return FleetEngine(executor, workers, stack)


def _dask(address: str) -> FleetEngine:
    distributed: Any = import_module("distributed")  # extra "dask"; it ships no types
    stack = contextlib.ExitStack()
    client = stack.enter_context(distributed.Client(address, timeout=_CONNECTING))
    client.wait_for_workers(1, timeout=_CONNECTING)
    # Not pure: two parts are never one task, whatever their arguments.
    return FleetEngine(client.get_executor(pure=False), sum(client.nthreads().values()), stack)


def _ray(address: str | None) -> FleetEngine:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = import_module("ray")  # extra "ray"; without its types, which are those of one version
    stack = contextlib.ExitStack()
    if not ray.is_initialized():
        ray.init(address or "auto", log_to_driver=False)
        stack.callback(ray.shutdown)
    return FleetEngine(_RayExecutor(ray), max(1, int(ray.cluster_resources().get("CPU", 1))), stack)


class _RayExecutor(Executor):
    """Ray as an executor: a part whose worker dies fails, and is begun again by the run."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        remote = self._ray.remote(fn).options(num_cpus=1, max_retries=0)
        return cast("Future[T]", remote.remote(*args, **kwargs).future())
