"""A run on an engine: parts are handed out, begun again when their worker dies, and counted together."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypedDict, TypeVar

from attrs import field, frozen

from face_async import Throttle
from face_async.fleet.layout import StateError
from face_async.fleet.shard import PartResult, PartTask, attempt, read_progress
from face_async.fleet.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from face_async.fleet.connection import ServiceConnection
    from face_async.fleet.layout import RunState
    from face_async.fleet.plan import Plan
    from face_async.fleet.summary import FleetSummary

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_EVERY = 1.0  # seconds between two looks at what is under way
_MOST_LOSSES = 20  # of one part, after which it is taken to be what kills its workers

Work: TypeAlias = "Callable[[PartTask], PartResult]"


class EngineOptions(TypedDict, total=False):
    """The keyword arguments of everything that is done on an engine, beside ``connection``.

    Attributes:
        executor: The engine, such as :func:`open_engine` gives; None, which is the default, does one part after
            another in this process. It must pass on functions of installed modules.
        at_once: How many parts are under way at once, 1 to the budget's ``max_concurrency``; 4 by default.
        budget: The bounds of the whole run, ``Throttle()`` by default; each part that is under way has an equal share.
        fit: Makes pictures that are too large for a request smaller; False by default.
        on_progress: Called about once a second with the :class:`FleetSummary` of the run.
    """

    executor: Executor | None
    at_once: int
    budget: Throttle
    fit: bool
    on_progress: Callable[[FleetSummary], object] | None


@frozen(kw_only=True)
class _EngineSettings:
    """The options, with their defaults."""

    executor: Executor | None = None
    at_once: int = 4
    budget: Throttle = field(factory=Throttle)
    fit: bool = False
    on_progress: Callable[[FleetSummary], object] | None = None


class PartsRun:
    """A run of parts; after it, its results.

    Args:
        state: Where they are.
        plan: What they are.
        connection: How workers reach the service.
        options: As :class:`EngineOptions` has them.
        check: Raises an error if another driver has taken over the run.
        out: Of an identification, the folder for what is found.

    Attributes:
        results: The results of the parts that this run has worked on.
    """

    def __init__(
        self,
        state: RunState,
        plan: Plan,
        connection: ServiceConnection,
        options: EngineOptions,
        check: Callable[[], None],
        *,
        out: str = "",
    ) -> None:
        self.results: list[PartResult] = []
        self._state = state
        self._plan = plan
        self._connection = connection
        self._settings = _EngineSettings(**options)
        self._check = check
        self._out = out
        self._done: Sequence[PartResult] = ()
        self._parts = 0
        self._compares = False
        self._failed: list[int] = []
        self._losses: Counter[int] = Counter()
        self._under_way: dict[Future[PartResult | Exception], int] = {}
        self._began = time.monotonic()

    def drive(
        self, work: Work, ranks: Sequence[int], *, parts: int, done: Sequence[PartResult] = (), compares: bool = False
    ) -> FleetSummary:
        """Work on parts, some at a time, and return the summary of all.

        Args:
            work: What is done with each of them.
            ranks: Their numbers.
            parts: How many there are with the others.
            done: The results of the others, as far as there are any.
            compares: Whether it is a comparison, of which no part tells its progress.

        Raises:
            ValueError: There are to be more at once than calls.
            StateError: A part has killed twenty workers.
            Exception: Whatever ends a part; the others that are under way are finished before.
        """
        self._done, self._parts, self._compares = done, parts, compares
        settings = self._settings
        executor, at_once = settings.executor, min(settings.at_once, max(1, len(ranks)))
        if executor is None:
            executor, at_once = _ThisProcess(), 1
        share = settings.budget.divided(at_once)
        left = iter(ranks)
        failure: Exception | None = None
        try:
            while True:
                while failure is None and len(self._under_way) < at_once and (rank := next(left, None)) is not None:
                    self._submit(executor, work, self._task(rank, share))
                self._check()
                summary = self._tell()
                if not self._under_way:
                    break
                ended, _ = wait(self._under_way, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
                for future in ended:
                    rank = self._under_way.pop(future)
                    result = self._result_of(future, rank)
                    if isinstance(result, PartResult):
                        self.results.append(result)
                    elif result is None:
                        self._submit(executor, work, self._task(rank, share))
                    else:
                        result.add_note(f"in part {rank} of {self._plan.shards}; the same call goes on from here")
                        failure = failure or result
                        self._failed.append(rank)
        finally:
            for future in self._under_way:
                future.cancel()
        if failure is not None:
            raise failure
        return summary

    def _task(self, rank: int, share: Throttle) -> PartTask:
        return PartTask(self._state.location, rank, self._connection, share, fit=self._settings.fit, out=self._out)

    def _submit(self, executor: Executor, work: Work, task: PartTask) -> None:
        self._under_way[executor.submit(attempt, work, task)] = task.rank

    def _result_of(self, future: Future[PartResult | Exception], rank: int) -> PartResult | Exception | None:
        """Return what a part has come to, None if its worker has died and it is to be begun again."""
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 - each engine has errors of its own for a worker that has died
            self._losses[rank] += 1
            if self._losses[rank] >= _MOST_LOSSES:
                lost = StateError(f"{_MOST_LOSSES} workers have died with part {rank}: {error}")
                lost.__cause__ = error
                return lost
            return None

    def _tell(self) -> FleetSummary:
        ranks = [*self._under_way.values(), *self._failed]
        known = {rank: None if self._compares else read_progress(self._state, rank) for rank in ranks}
        summary = summarize(
            self._plan,
            self._parts,
            before=self._done,
            now=self.results,
            under_way=[known[rank] for rank in self._under_way.values()],
            failed=[known[rank] for rank in self._failed],
            losses=self._losses.total(),
            seconds=time.monotonic() - self._began,
        )
        if self._settings.on_progress is not None:
            self._settings.on_progress(summary)
        return summary


class _ThisProcess(Executor):
    """Does in this process, at once, what is submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
