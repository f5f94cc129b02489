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
