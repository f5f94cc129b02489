"""A population beyond one group: numbered groups that are used as if they were one."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, TypeVar, Unpack

import anyio

from face_async._call.home import Home
from face_async.bulk.api import search_groups
from face_async.bulk.ledger import Key
from face_async.bulk.limited import taken
from face_async.bulk.outage import BulkOutages
from face_async.bulk.outcomes import MAX_AT_ONCE, MapOptions, Outcomes
from face_async.bulk.persons import NewPerson, NewPersonRequest, check_new_person, sendable_person, take_person
from face_async.endpoints import DEL_GROUP_IDS, DEL_PERSON, IDENTIFY, NEW_PERSON, subject_of
from face_async.errors import CallError, NotFoundError, PersonLimitError, ReturnCode, quoted
from face_async.limits import check_id
from face_async.models import AddGroupIdsResult, GroupsResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable

    from face_async.bulk.api import BulkApi, Errors
    from face_async.bulk.limited import ImageT
    from face_async.bulk.outage import OnOutage
    from face_async.bulk.persons import PersonT
    from face_async.endpoints import Endpoint
    from face_async.images import ImageSource
    from face_async.models import DelGroupIdsResult, DelPersonResult, NewPersonResult

T = TypeVar("T")

_MOST_SHARDS = 10_000  # as many as four digits can number


class ShardedGroup:
    """Persons in as many groups as they need, used as if it were one (Spec: 2, item 2).

    The groups are its shards, and named after it: ``staff-0000``, ``staff-0001`` and so on. A new person is put into
    the lowest-numbered shard that has room, and a shard is created when all others are full, so a population of any
    size can be opened again by its name alone. Any number of tasks may use it at once. Nothing is asked of the service
    before it is used, and there is nothing to close.

    Args:
        session: The session to work with.
        name: What the shards' ids begin with.

    Raises:
        TypeError, ValueError: The shards' ids would be none that the service accepts.
    """

    def __init__(self, session: BulkApi, name: str) -> None:
        check_id("name", name, session.limits)
        self._session = session
        self._name = name
        check_id("name with the shard's number", self._shard(0), session.limits)
        self._pattern = re.compile(re.escape(name) + r"-([0-9]{4})")
        self._home = Home("sharded group")
        self._listing = anyio.Lock()
        self._listed = False
        self._numbers: set[int] = set()  # of the shards that exist
        self._full: set[int] = set()
        self._deletions = 0

    @property
    def name(self) -> str:
        """What the shards' ids begin with."""
        return self._name

    async def shards(self) -> list[str]:
        """Return the ids of the shards, in their order.

        The service is asked once; after that only shards that this object creates are added. See :meth:`refresh`.
        """
        self._home.enter()
        async with self._listing:
            if not self._listed:
                self._numbers.update(await self._list())
                self._listed = True
        return [self._shard(number) for number in sorted(self._numbers)]

    def refresh(self) -> None:
        """Ask the service anew when next used: others may have created shards, or deleted persons from full ones."""
        self._listed = False
        self._open(self._numbers | self._full)

    async def new_person(
        self,
        person_id: str,
        image: ImageSource | None = None,
        *,
        person_name: str | None = None,
        tag: str | None = None,
    ) -> NewPersonResult:
        """Create a person in the lowest-numbered shard that has room; ``group_ids`` of the result tells which.

        Args:
            person_id: The new person's id.
            image: A picture with the person's face.
            person_name: The person's name.
            tag: A remark.

        Raises:
            AlreadyExistsError: A person of this id exists, here or in any other group.
            GroupLimitError: All shards are full, and the appid has no room for another group.
            ImageError: No face was found in the picture, or it cannot be decoded or fetched.
        """
        outages = BulkOutages(self._session.probe, "fail")
        return await self._create(NewPerson(person_id, (), image, person_name, tag), outages)

    def new_persons(
        self,
        persons: Iterable[PersonT] | AsyncIterable[PersonT],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PersonT, NewPersonResult]],
    ) -> Outcomes[PersonT, NewPersonResult]:
        """Create many persons, as :meth:`BulkApi.new_persons` does; their ``group_ids`` must be empty."""
        outages = BulkOutages(self._session.probe, on_outage)

        async def create(person: PersonT) -> NewPersonResult:
            return await self._create(person, outages, fit=fit)

        take = partial(take_person, self._session, fit=fit)
        return Outcomes(create, persons, endpoint=NEW_PERSON, outages=outages, take=take, **options)

    async def del_person(self, person_id: str) -> DelPersonResult:
        """Delete a person of this population, with all faces and from all groups.

        Raises:
            NotFoundError: No person of this id exists, or it is in none of the shards; nothing was deleted then.
        """
        numbers = await self._shards_of_member(person_id, DEL_PERSON)
        try:
            return await self._session.del_person(person_id)
        finally:
            self._open(numbers)

    async def add_person(self, person_id: str) -> AddGroupIdsResult:
        """Take a person that exists into this population, in the lowest-numbered shard that has room.

        Whoever is in one of the shards already stays there: ``added`` is 0 then. This is beyond the specification.

        Raises:
            UnsupportedError: The server cannot put persons in further groups.
            NotFoundError: No person of this id exists.
            GroupLimitError: All shards are full, and the appid has no room for another group.
        """
        if await self._shards_of(person_id):
            return AddGroupIdsResult(person_id=person_id, added=0, group_ids=())
        return await self._place(lambda shard: self._session.add_group_ids(person_id, [shard]))

    async def remove_person(self, person_id: str) -> DelGroupIdsResult:
        """Take a person out of this population; the person stays, with all faces, and in all other groups.

        This is beyond the specification.

        Raises:
            UnsupportedError: The server cannot take persons out of groups.
            NotFoundError: No person of this id exists, or it is in none of the shards.
        """
        numbers = await self._shards_of_member(person_id, DEL_GROUP_IDS)
        try:
            return await self._session.del_group_ids(person_id, [self._shard(number) for number in sorted(numbers)])
        finally:
            self._open(numbers)

    async def move_person(self, person_id: str, to: ShardedGroup) -> AddGroupIdsResult:
        """Move a person to another population: added there first, then removed here.

        When the second step fails, the person is in both; calling it again goes on from there.

        Raises:
            ValueError: ``to`` is this population.
            UnsupportedError, NotFoundError, GroupLimitError: As :meth:`add_person` and :meth:`remove_person`.
        """
        if to.name == self.name:
            raise ValueError(f"to must be another population than {quoted(self.name)}")
        await self._shards_of_member(person_id, DEL_GROUP_IDS)
        added = await to.add_person(person_id)
        await self.remove_person(person_id)
        return added

    async def person_ids(self) -> AsyncGenerator[str]:
        """Yield the ids of all persons, shard by shard; one shard's ids are in memory at a time."""
        for shard in await self.shards():
            for person_id in await self._session.get_person_ids(shard):
                yield person_id

    async def identify(
        self,
        image: ImageSource,
        *,
        top: int = 5,
        fit: bool = False,
        max_at_once: int = MAX_AT_ONCE,
        errors: Errors = "raise",
        on_outage: OnOutage = "fail",
    ) -> GroupsResult:
        """Find the persons of all shards who are most like the one in a picture, as if they were in one group.

        Args:
            image: The picture, which is read once.
            top: How many candidates to return at most, 1 or more.
            fit: True makes a picture fit that is too large for a request.
            max_at_once: How many shards are asked at once, 1 or more.
            errors: ``"raise"`` raises the error of a shard that fails, since the best candidate may be in it;
                ``"collect"`` puts it beside the other shards' results.
            on_outage: ``"wait"`` waits while the service is away; ``"fail"`` fails.

        Raises:
            TypeError, ValueError, ImageRefusedError: As :meth:`BulkApi.identify_in_groups`.
        """
        outages = BulkOutages(self._session.probe, on_outage)
        return await self._identify(image, outages, top=top, fit=fit, max_at_once=max_at_once, errors=errors)

    async def _identify(
        self, image: ImageSource, outages: BulkOutages, *, top: int, fit: bool, max_at_once: int, errors: Errors
    ) -> GroupsResult:
        shards = await outages.call(self.shards, proves=False)
        if not shards:
            return GroupsResult(candidates=(), by_group={}, errors={})
        return await search_groups(
            self._session, image, shards, outages, top=top, fit=fit, max_at_once=max_at_once, errors=errors
        )

    def identify_many(
        self,
        images: Iterable[ImageT] | AsyncIterable[ImageT],
        *,
        top: int = 5,
        fit: bool = False,
        errors: Errors = "raise",
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[ImageT, GroupsResult]],
    ) -> Outcomes[ImageT, GroupsResult]:
        """Identify many pictures, each as :meth:`identify` does; ``max_at_once`` counts pictures."""
        outages = BulkOutages(self._session.probe, on_outage)

        async def identify(image: ImageT) -> GroupsResult:
            return await self._identify(image, outages, top=top, fit=fit, max_at_once=MAX_AT_ONCE, errors=errors)

        take = partial(taken, self._session, fit=fit)
        return Outcomes(identify, images, endpoint=IDENTIFY, outages=outages, take=take, **options)

    def __repr__(self) -> str:
        return f"ShardedGroup({self._name!r})"

    def _shard(self, number: int) -> str:
        return f"{self._name}-{number:04}"

    def _number(self, group_id: str) -> int | None:
        match = self._pattern.fullmatch(group_id)
        return None if match is None else int(match[1])

    async def _shards_of(self, person_id: str) -> set[int]:
        info = await self._session.get_info(person_id)
        return {number for group_id in info.group_ids if (number := self._number(group_id)) is not None}

    async def _shards_of_member(self, person_id: str, endpoint: Endpoint[object]) -> set[int]:
        """Return the shards that a person is in; a person in none of them does not exist here."""
        numbers = await self._shards_of(person_id)
        if not numbers:
            subject = subject_of({"person_id": person_id})
            error = NotFoundError(ReturnCode.ERROR_PERSON_NOT_EXISTED, endpoint=endpoint.name, subject=subject)
            error.add_note(f"a person of this id exists, but in none of the shards of {quoted(self._name)}")
            raise error
        return numbers

    async def _list(self) -> set[int]:
        try:
            group_ids = await self._session.get_group_ids()
        except NotFoundError as error:
            if error.code != ReturnCode.ERROR_GROUPLIST_NOT_EXISTED:  # one way to say that there are none
                raise
            return set()
        return {number for group_id in group_ids if (number := self._number(group_id)) is not None}

    def _open(self, numbers: set[int]) -> None:
        """Take shards for ones that may have room again."""
        self._full -= numbers
        self._deletions += 1
        if numbers:  # without any, everything would be forgotten
            self._session.ledger.forget(*(Key("persons", self._shard(number)) for number in numbers))

    async def _create(self, person: NewPerson, outages: BulkOutages, *, fit: bool = False) -> NewPersonResult:
        check_new_person(person)
        if person.group_ids:
            raise ValueError("group_ids must be empty: a ShardedGroup chooses the group by itself")
        sent = await sendable_person(self._session, person, fit=fit, shard=self._shard(0))
        return await self._place(lambda shard: outages.call(NewPersonRequest(self._session, sent, [shard]).send))

    async def _place(self, put: Callable[[str], Awaitable[T]]) -> T:
        """Put a person into the lowest-numbered shard that has room."""
        for number in range(_MOST_SHARDS):
            if number in self._full:
                continue
            deletions = self._deletions
            try:
                result = await put(self._shard(number))
            except PersonLimitError as error:
                if isinstance(error, CallError) and error.maybe_applied:
                    raise  # the person may be in this very shard
                if deletions == self._deletions:  # otherwise somebody may have left meanwhile
                    self._full.add(number)
            else:
                self._numbers.add(number)
                return result
        raise PersonLimitError(f"all {_MOST_SHARDS:,} shards of {quoted(self._name)} are full")
