"""Many calls at once: the one bounded map, and the bulk verbs that stand on it."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Sized
from contextlib import closing, nullcontext
from itertools import count
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import anyio
from attrs import field, frozen

from face_async._endpoints import FaceApi
from face_async.errors import FaceError
from face_async.images import in_memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import TypeAlias

    from anyio.abc import TaskGroup

    from face_async.images import ImageSource
    from face_async.limits import ServiceLimits
    from face_async.models import Candidate, FaceOutcome, IdentifyResult, VerifyResult

    PersonImage: TypeAlias = tuple[str, ImageSource]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@frozen
class Outcome(Generic[ItemT, ResultT]):
    """What became of one item: a result or an error.

    Attributes:
        index: The item's place in the input, from 0.
        item: The item as it was given.
        result: The result, None when there is an error.
        error: The error, None when there is a result.
    """

    index: int
    item: ItemT = field(repr=False)
    result: ResultT | None = None
    error: FaceError | ValueError | None = None

    def unwrap(self) -> ResultT:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("ResultT", self.result)


class Outcomes(Generic[ItemT, ResultT]):
    """The bounded map: runs a call for every item, and yields one :class:`Outcome` each.

    An asynchronous context manager and iterator. The input is pulled only as outcomes are taken: of all items pulled,
    at most ``max_at_once`` are not done with, the one that the caller holds included. An item that fails costs one
    outcome; an item of a wrong type ends the iteration with its ``TypeError``. Leaving the context cancels what runs.
    """

    def __init__(
        self,
        call: Callable[[ItemT], Awaitable[ResultT]],
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        *,
        max_at_once: int,
        ordered: bool = False,
        progress: Callable[[int, int | None, Outcome[ItemT, ResultT]], object] | None = None,
    ) -> None:
        if max_at_once < 1:
            raise ValueError(f"max_at_once must be 1 or more, not {max_at_once}")
        _check_iterable(items)
        self._call = call
        self._items = items
        self._size = len(items) if isinstance(items, Sized) else None
        self._ordered = ordered
        self._progress = progress
        self._places = anyio.Semaphore(max_at_once, fast_acquire=True)
        self._ready: deque[Outcome[ItemT, ResultT]] = deque()
        self._early: dict[int, Outcome[ItemT, ResultT]] = {}  # ordered: done before their turn
        self._done = 0
        self._taken = 0
        self._holding = False  # whether the caller has an outcome whose place is not free yet
        self._end: int | None = None  # how many items there were, once known
        self._failure: Exception | None = None
        self._news = anyio.Event()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._feed, self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            # Not told of the body's exception, the group cannot wrap it: it goes on as it is.
            await self._tasks.__aexit__(None, None, None)
            self._tasks = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[ItemT, ResultT]:
        if self._tasks is None:
            raise RuntimeError("outcomes are a context manager: async with session.identify_many(...) as outcomes:")
        if self._holding:
            self._holding = False
            self._places.release()
        while self._failure is None and not self._ready and self._taken != self._end:
            self._news = anyio.Event()
            await self._news.wait()
        if self._failure is not None:
            raise self._failure
        if not self._ready:
            raise StopAsyncIteration
        self._taken += 1
        self._holding = True
        return self._ready.popleft()

    async def collect(self) -> list[Outcome[ItemT, ResultT]]:
        """Return all remaining outcomes in a list, in the order in which iterating yields them."""
        return [outcome async for outcome in self]

    async def _feed(self, tasks: TaskGroup) -> None:
        source = _each(self._items)
        try:
            for index in count():
                await self._places.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    self._end = index
                    break
                tasks.start_soon(self._run, index, item)
        except Exception as error:  # noqa: BLE001 - the input's own error is raised where outcomes are taken
            self._failure = error
        finally:
            self._news.set()
            with anyio.CancelScope(shield=True):
                await source.aclose()

    async def _run(self, index: int, item: ItemT) -> None:
        try:
            outcome = await self._outcome(index, item)
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._size, outcome)
            self._put(outcome)
        except Exception as error:  # noqa: BLE001 - a programming error is raised where outcomes are taken
            self._failure = error
        self._news.set()

    async def _outcome(self, index: int, item: ItemT) -> Outcome[ItemT, ResultT]:
        # The frame that catches an error hangs on the error, so it must not hold the outcome, or both would be
        # garbage that only the collector finds, late and with the item's picture.
        try:
            return Outcome(index, item, result=await self._call(item))
        except (FaceError, ValueError) as error:
            return Outcome(index, item, error=error)

    def _put(self, outcome: Outcome[ItemT, ResultT]) -> None:
        if not self._ordered:
            self._ready.append(outcome)
            return
        self._early[outcome.index] = outcome
        while (turn := self._taken + len(self._ready)) in self._early:
            self._ready.append(self._early.pop(turn))


def _check_iterable(items: object) -> None:
    if isinstance(items, str | bytes | os.PathLike) or not isinstance(items, Iterable | AsyncIterable):
        kind = type(items).__name__  # pyright: ignore[reportUnknownArgumentType]  # it is anything at all
        raise TypeError(f"expected a sync or async iterable of items, not a single {kind}")


async def _each(items: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    # A generator is closed with us: nobody else knows when it is no longer needed.
    if isinstance(items, AsyncIterable):
        source = aiter(items)
        try:
            async for item in source:
                yield item
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
    else:
        with closing(cast("Generator[ItemT, None, None]", items)) if isinstance(items, Generator) else nullcontext():
            for item in items:
                yield item


@frozen
class GroupsResult:
    """Whom of several groups a picture may show.

    Attributes:
        candidates: The most alike persons of all groups, each once with the best confidence, the most confident first.
        by_group: Every group's own result, in the order in which the groups were given.
        errors: What went wrong, for the groups that have no result.
    """

    candidates: tuple[Candidate, ...]
    by_group: Mapping[str, IdentifyResult]
    errors: Mapping[str, FaceError | ValueError]

    @property
    def best(self) -> Candidate | None:
        """The most confident candidate, None when there is none."""
        return self.candidates[0] if self.candidates else None


class BulkApi(FaceApi):
    """The bulk verbs.

    Their results are asynchronous context managers over :class:`Outcome`; all of them take

    - ``max_at_once``: how many items may be alive at once, 1 or more.
    - ``ordered``: True yields outcomes in input order, False as they are completed.
    - ``progress``: called as ``progress(done, total_or_None, outcome)`` when an item is completed.
    """

    @property
    @abstractmethod
    def limits(self) -> ServiceLimits:
        """The service's limits, as they are enforced before anything is sent."""

    def add_faces(
        self,
        pairs: Iterable[PersonImage] | AsyncIterable[PersonImage],
        *,
        max_at_once: int = 64,
        ordered: bool = False,
        progress: Callable[[int, int | None, Outcome[PersonImage, FaceOutcome]], object] | None = None,
    ) -> Outcomes[PersonImage, FaceOutcome]:
        """Add many faces (Spec: 2.3): one outcome per pair of person id and image.

        An image that the service refuses is an error of its outcome, such as ``DuplicateFaceError``.
        """

        async def add(pair: PersonImage) -> FaceOutcome:
            person_id, image = _pair(pair)
            result = await self.add_face(person_id, [image])
            result.raise_for_failures()
            return result.faces[0]

        return Outcomes(add, pairs, max_at_once=max_at_once, ordered=ordered, progress=progress)

    def identify_many(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        group_id: str,
        *,
        max_at_once: int = 64,
        ordered: bool = False,
        progress: Callable[[int, int | None, Outcome[ImageSource, IdentifyResult]], object] | None = None,
    ) -> Outcomes[ImageSource, IdentifyResult]:
        """Identify many pictures in one group (Spec: 2.12): one outcome per picture."""

        async def identify(image: ImageSource) -> IdentifyResult:
            return await self.identify(group_id, image)

        return Outcomes(identify, images, max_at_once=max_at_once, ordered=ordered, progress=progress)

    def verify_many(
        self,
        pairs: Iterable[PersonImage] | AsyncIterable[PersonImage],
        *,
        max_at_once: int = 64,
        ordered: bool = False,
        progress: Callable[[int, int | None, Outcome[PersonImage, VerifyResult]], object] | None = None,
    ) -> Outcomes[PersonImage, VerifyResult]:
        """Verify many pictures (Spec: 2.11): one outcome per pair of person id and image."""

        async def verify(pair: PersonImage) -> VerifyResult:
            return await self.verify(*_pair(pair))

        return Outcomes(verify, pairs, max_at_once=max_at_once, ordered=ordered, progress=progress)

    async def identify_in_groups(
        self, image: ImageSource, group_ids: Sequence[str], *, top: int = 5, max_at_once: int = 64
    ) -> GroupsResult:
        """Find the persons of several groups who are most like the one in a picture (Spec: 2.12).

        The picture is read once; every group is asked at the same time, as far as the throttle allows. A group that
        fails does not fail the others.

        Args:
            image: The picture.
            group_ids: The groups, each once.
            top: How many candidates to return at most, 1 or more; a group contributes at most five.
            max_at_once: How many groups are asked at once, 1 or more.

        Raises:
            TypeError, ValueError: No group, a group twice, or ``top`` below 1.
            ImageRefusedError: The picture is missing or cannot be read.
        """
        if isinstance(group_ids, str):
            raise TypeError(f"group_ids must be a list of str, not a single str: write [{group_ids!r}]")
        if not group_ids or len(set(group_ids)) != len(group_ids):
            raise ValueError("group_ids must name at least one group, and none twice")
        if top < 1:
            raise ValueError(f"top must be 1 or more, not {top}")
        picture = await in_memory(image, self.limits.max_request_bytes)

        async def identify(group_id: str) -> IdentifyResult:
            return await self.identify(group_id, picture)

        async with Outcomes(identify, group_ids, max_at_once=max_at_once, ordered=True) as outcomes:
            found = await outcomes.collect()
        by_group = {outcome.item: outcome.result for outcome in found if outcome.result is not None}
        errors = {outcome.item: outcome.error for outcome in found if outcome.error is not None}
        return GroupsResult(candidates=_merge(by_group.values())[:top], by_group=by_group, errors=errors)


def _merge(results: Iterable[IdentifyResult]) -> tuple[Candidate, ...]:
    """Return every person once, with the best confidence, the most confident first."""
    best: dict[str, Candidate] = {}
    for result in results:
        for candidate in result.candidates:
            known = best.get(candidate.person_id)
            if known is None or candidate.confidence > known.confidence:
                best[candidate.person_id] = candidate
    return tuple(sorted(best.values(), key=lambda candidate: candidate.confidence, reverse=True))


def _pair(pair: object) -> PersonImage:
    if not isinstance(pair, tuple | list) or len(cast("Sequence[object]", pair)) != 2:  # noqa: PLR2004 - a pair
        raise TypeError("every item must be a pair (person_id, image)")
    return cast("PersonImage", pair)
