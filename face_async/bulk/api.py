"""Many calls at once: the bulk verbs, which stand on the one bounded map."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack, cast

from face_async.bulk.ledger import Key, Reservation
from face_async.bulk.limited import ImageT, LimitedApi, fit_into, sendable, taken
from face_async.bulk.lines import PairT, PersonLines, check_pair, take_pair
from face_async.bulk.outage import BulkOutages
from face_async.bulk.outcomes import MAX_AT_ONCE, MapOptions, Outcomes
from face_async.bulk.persons import NewPersonRequest, PersonT, check_new_person, sendable_person, take_person
from face_async.endpoints import (
    ADD_FACE,
    DETECT,
    IDENTIFY,
    NEW_PERSON,
    VERIFY,
    searched,
)
from face_async.errors import LimitError, quoted
from face_async.images import in_memory
from face_async.limits import check_count, check_group_ids, check_id, check_list, check_text
from face_async.models import GroupsResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Generator, Iterable, Sequence

    from face_async.bulk.outage import OnOutage
    from face_async.bulk.outcomes import JobRunner
    from face_async.errors import FaceError
    from face_async.images import ImageSource
    from face_async.models import (
        AddFaceResult,
        AddGroupIdsResult,
        Candidate,
        DelFaceResult,
        DelGroupIdsResult,
        DelPersonResult,
        DetectResult,
        FaceOutcome,
        IdentifyResult,
        NewPersonResult,
        VerifyResult,
    )

Errors: TypeAlias = Literal["collect", "raise"]
"""What becomes of groups that fail: the first error is raised (the default), or all are put beside the results."""


class BulkApi(LimitedApi):
    """The bulk verbs.

    Most of their results are asynchronous context managers over :class:`Outcome`; all of those take

    - the items, as a synchronous or asynchronous iterable of any length;
    - ``fit``: True makes pictures fit that are too large for a request, see :func:`fit_image` (extra ``server``);
    - ``max_at_once``: how many items may be alive at once, 1 or more, 64 by default;
    - ``ordered``: True yields outcomes in input order, False (the default) as they are completed;
    - ``progress``: called as ``progress(done, total_or_None, outcome)`` when an item is completed;
    - ``on_outage``: ``"fail"`` (the default) lets every item fail that meets a service which is away; ``"wait"`` stops
      pulling the input, probes the service with pauses of 1 to 60 seconds until it answers, however long that takes,
      and makes the calls that failed again: none is lost, and none has its effect twice. A call that fails three times
      while the service answers in between is given up.
    """

    async def new_person(
        self,
        person_id: str,
        group_ids: Sequence[str],
        image: ImageSource | None = None,
        *,
        person_name: str | None = None,
        tag: str | None = None,
        exist_ok: bool = False,
    ) -> NewPersonResult:
        """As :meth:`FaceApi.new_person`, and the ledger hears of it."""
        with self._changing(person_id):  # whoever had this id before may have been deleted elsewhere
            return await super().new_person(
                person_id, group_ids, image, person_name=person_name, tag=tag, exist_ok=exist_ok
            )

    async def add_face(self, person_id: str, images: Sequence[ImageSource], *, tag: str | None = None) -> AddFaceResult:
        """As :meth:`FaceApi.add_face`, and the ledger hears of it."""
        with self._changing(person_id):
            return await super().add_face(person_id, images, tag=tag)

    async def del_person(self, person_id: str) -> DelPersonResult:
        """As :meth:`FaceApi.del_person`, and the ledger hears of it."""
        with self._changing(person_id, deleted=True):
            return await super().del_person(person_id)

    async def del_face(self, person_id: str, face_ids: Sequence[str]) -> DelFaceResult:
        """As :meth:`FaceApi.del_face`, and the ledger hears of it."""
        with self._changing(person_id):
            return await super().del_face(person_id, face_ids)

    @contextlib.contextmanager
    def _changing(self, person_id: str, *, deleted: bool = False) -> Generator[None]:
        """Have the ledger forget what it knows of a person after a call that may have changed it, however that ends."""
        check_id("person_id", person_id, self.limits)  # the ledger knows persons by their ids alone
        try:
            yield
        finally:
            if deleted:
                self.ledger.forget_person(person_id)
            else:
                self.ledger.forget(Key("faces", person_id))

    async def add_group_ids(self, person_id: str, group_ids: Sequence[str]) -> AddGroupIdsResult:
        """As :meth:`FaceApi.add_group_ids`, with room that the ledger has reserved in the groups.

        The persons of a group are listed when the session needs its count for the first time. Where there is no room,
        ``PersonLimitError`` or ``GroupLimitError`` is raised before the person is changed.
        """
        with await self._room_for_person(person_id, group_ids) as reservation:
            result = await super().add_group_ids(person_id, group_ids)
            if result.meta.settled:
                reservation.doubt()  # nobody can tell which of the groups are new
            else:
                reservation.commit(min(1, result.added), result.group_ids)
            return result

    async def _room_for_person(self, person_id: str, group_ids: Sequence[str]) -> Reservation:
        """Reserve room in the groups that a person is not in yet."""
        try:
            return await self.ledger.person(group_ids)
        except LimitError:
            joined = set((await self.get_info(person_id)).group_ids)
            others = [group_id for group_id in group_ids if group_id not in joined]
            if len(others) == len(group_ids):
                raise
            return await self.ledger.person(others) if others else Reservation.of_nothing(1)

    async def del_group_ids(self, person_id: str, group_ids: Sequence[str]) -> DelGroupIdsResult:
        """As :meth:`FaceApi.del_group_ids`, and the ledger hears of it."""
        check_group_ids(group_ids, self.limits)
        try:
            return await super().del_group_ids(person_id, group_ids)
        finally:
            self.ledger.recount(*(Key("persons", group_id) for group_id in group_ids))

    def add_faces(
        self,
        pairs: Iterable[PairT] | AsyncIterable[PairT],
        *,
        tag: str | None = None,
        pack: bool = True,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PairT, FaceOutcome]],
    ) -> Outcomes[PairT, FaceOutcome]:
        """Add many faces (Spec: 2.3): one outcome per pair of person id and image.

        Neighboring images of one person share a request, at most 20 images and 1,500,000 bytes. A person's images are
        added in input order, one request after another, and no more than there is room for: each person's faces are
        counted first. An image that is refused, by the limits or by the service, is an error of its outcome alone,
        such as ``FaceLimitError`` or ``DuplicateFaceError``.

        Args:
            pairs: Person ids and images.
            tag: A remark for all these faces.
            pack: False sends every image alone.
            fit: Makes pictures that are too large for a request smaller, as :func:`~face_async.fit_image` does.
            on_outage: ``"wait"`` waits while the service is away; ``"fail"`` makes errors of the outcomes.
            **options: ``max_at_once`` (pairs alive at once, 64 by default), ``ordered`` (outcomes in input order) and
                ``progress`` (called as ``progress(done, total_or_None, outcome)``).
        """
        if tag is not None:
            check_text("tag", tag, self.limits)
        outages = BulkOutages(self.probe, on_outage)
        most = options.get("max_at_once", MAX_AT_ONCE)
        lines = PersonLines(self, outages, tag=tag, pack=pack, fit=fit, max_at_once=most)
        # The lines hand every pair on as it is; only their own type does not say so.
        runner = cast("JobRunner[PairT, FaceOutcome]", lines)
        take = partial(take_pair, self, fit=fit)
        return Outcomes(runner, pairs, endpoint=ADD_FACE, outages=outages, take=take, **options)

    def new_persons(
        self,
        persons: Iterable[PersonT] | AsyncIterable[PersonT],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PersonT, NewPersonResult]],
    ) -> Outcomes[PersonT, NewPersonResult]:
        """Create many persons (Spec: 2.1): one outcome per :class:`NewPerson`.

        No group gets more persons, and the appid no more groups, than there is room for: they are counted first, and
        a person too many is an error of its outcome, ``PersonLimitError`` or ``GroupLimitError``. So is a person who
        exists, ``AlreadyExistsError``, which says what ``exist_ok`` of :meth:`new_person` would.
        """
        outages = BulkOutages(self.probe, on_outage)

        async def create(person: PersonT) -> NewPersonResult:
            check_new_person(person)
            sent = await sendable_person(self, person, fit=fit)
            return await outages.call(NewPersonRequest(self, sent, sent.group_ids).send)

        take = partial(take_person, self, fit=fit)
        return Outcomes(create, persons, endpoint=NEW_PERSON, outages=outages, take=take, **options)

    def identify_many(
        self,
        images: Iterable[ImageT] | AsyncIterable[ImageT],
        group_id: str | Sequence[str],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[ImageT, IdentifyResult]],
    ) -> Outcomes[ImageT, IdentifyResult]:
        """Identify many pictures in a group, or in several as :meth:`identify` does: one outcome per picture."""
        outages = BulkOutages(self.probe, on_outage)

        async def identify(image: ImageT) -> IdentifyResult:
            picture = await sendable(self, image, IDENTIFY, searched(group_id), fit=fit)
            return await outages.call(lambda: self.identify(group_id, picture))

        take = partial(taken, self, fit=fit)
        return Outcomes(identify, images, endpoint=IDENTIFY, outages=outages, take=take, **options)

    def verify_many(
        self,
        pairs: Iterable[PairT] | AsyncIterable[PairT],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PairT, VerifyResult]],
    ) -> Outcomes[PairT, VerifyResult]:
        """Verify many pictures (Spec: 2.11): one outcome per pair of person id and image."""
        outages = BulkOutages(self.probe, on_outage)

        async def verify(pair: PairT) -> VerifyResult:
            person_id, image = check_pair(pair)
            picture = await sendable(self, image, VERIFY, {"person_id": person_id}, fit=fit)
            return await outages.call(lambda: self.verify(person_id, picture))

        take = partial(take_pair, self, fit=fit)
        return Outcomes(verify, pairs, endpoint=VERIFY, outages=outages, take=take, **options)

    def detect_many(
        self,
        images: Iterable[ImageT] | AsyncIterable[ImageT],
        *,
        largest_only: bool = False,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[ImageT, DetectResult]],
    ) -> Outcomes[ImageT, DetectResult]:
        """Find and describe the faces in many pictures (beyond the specification): one outcome per picture."""
        outages = BulkOutages(self.probe, on_outage)

        async def detect(image: ImageT) -> DetectResult:
            picture = await sendable(self, image, DETECT, {"mode": 1}, fit=fit)
            return await outages.call(lambda: self.detect(picture, largest_only=largest_only))

        take = partial(taken, self, fit=fit)
        return Outcomes(detect, images, endpoint=DETECT, outages=outages, take=take, **options)

    async def identify_in_groups(
        self,
        image: ImageSource,
        group_ids: Sequence[str],
        *,
        top: int = 5,
        fit: bool = False,
        max_at_once: int = MAX_AT_ONCE,
        errors: Errors = "raise",
        on_outage: OnOutage = "fail",
    ) -> GroupsResult:
        """Find the persons of several groups who are most like the one in a picture (Spec: 2.12).

        The picture is read once; every group is asked at the same time, as far as the throttle allows.

        Args:
            image: The picture.
            group_ids: The groups, each once.
            top: How many candidates to return at most, 1 or more; a group contributes at most five.
            fit: True makes a picture fit that is too large for a request.
            max_at_once: How many groups are asked at once, 1 or more.
            errors: ``"raise"`` raises the error of the first group that fails, since the best candidate may be in it,
                and asks no further; ``"collect"`` puts the errors of such groups beside the others' results.
            on_outage: ``"wait"`` waits while the service is away, as bulk verbs do; ``"fail"`` fails.

        Raises:
            TypeError, ValueError: No group, a group twice, ``top`` below 1, or an unknown word for ``errors`` or
                ``on_outage``.
            ImageRefusedError: The picture is missing or cannot be read.
        """
        outages = BulkOutages(self.probe, on_outage)
        return await search_groups(
            self, image, group_ids, outages, top=top, fit=fit, max_at_once=max_at_once, errors=errors
        )


async def search_groups(
    api: BulkApi,
    image: ImageSource,
    group_ids: Sequence[str],
    outages: BulkOutages,
    *,
    top: int,
    fit: bool,
    max_at_once: int,
    errors: Errors,
) -> GroupsResult:
    """As :meth:`BulkApi.identify_in_groups`, by calls that ``outages`` makes."""
    check_list("group_ids", group_ids)
    if not group_ids or len(set(group_ids)) != len(group_ids):
        raise ValueError("group_ids must name at least one group, and none twice")
    check_count("top", top)
    if errors not in {"collect", "raise"}:
        raise ValueError(f"errors must be 'collect' or 'raise', not {quoted(errors)}")
    if fit:
        image = await fit_into(api, image, IDENTIFY, {"group_id": max(group_ids, key=lambda name: len(name.encode()))})
    picture = await in_memory(image, api.limits.max_request_bytes)

    async def identify(group_id: str) -> IdentifyResult:
        return await outages.call(lambda: api.identify(group_id, picture))

    found: dict[str, IdentifyResult] = {}
    failed: dict[str, FaceError | ValueError] = {}
    outcomes = Outcomes(identify, group_ids, max_at_once=max_at_once, endpoint=IDENTIFY, outages=outages)
    async with outcomes:
        async for outcome in outcomes:
            if outcome.error is None or errors == "raise":
                found[outcome.item] = outcome.unwrap()
            else:
                failed[outcome.item] = outcome.error
    by_group = {group_id: found[group_id] for group_id in group_ids if group_id in found}
    in_order = {group_id: failed[group_id] for group_id in group_ids if group_id in failed}
    return GroupsResult(candidates=_best_of(by_group.values())[:top], by_group=by_group, errors=in_order)


def _best_of(results: Iterable[IdentifyResult]) -> tuple[Candidate, ...]:
    """Return every person once, with the best confidence, the most confident first."""
    best: dict[str, Candidate] = {}
    for result in results:
        for candidate in result.candidates:
            known = best.get(candidate.person_id)
            if known is None or candidate.confidence > known.confidence:
                best[candidate.person_id] = candidate
    return tuple(sorted(best.values(), key=lambda candidate: candidate.confidence, reverse=True))
