"""Persons to be created: with room in their groups, and once, also where an outage leaves it in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from attrs import define, evolve, field, frozen

from face_async._call.judgement import Phase, judge_error
from face_async._call.settle import Doubt, settle
from face_async.bulk.ledger import Reservation
from face_async.bulk.limited import sendable, taken
from face_async.endpoints import NEW_PERSON
from face_async.errors import CallError
from face_async.models import Meta, NewPersonResult, with_meta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.bulk.limited import LimitedApi
    from face_async.endpoints import Fields
    from face_async.images import ImageSource


@frozen
class NewPerson:
    """A person to be created by :meth:`BulkApi.new_persons`; the attributes are the arguments of ``new_person``.

    Attributes:
        person_id: The new person's id.
        group_ids: The groups to put the person in; leave them empty for a :class:`ShardedGroup`, which chooses.
        image: A picture with the person's face.
        person_name: The person's name.
        tag: A remark.
    """

    person_id: str
    group_ids: Sequence[str] = ()
    image: ImageSource | None = field(default=None, repr=False)
    person_name: str | None = None
    tag: str | None = None


PersonT = TypeVar("PersonT", bound=NewPerson)


def check_new_person(person: object) -> None:
    """Check an item of ``new_persons``.

    Raises:
        TypeError: It is no :class:`NewPerson`.
    """
    if not isinstance(person, NewPerson):
        raise TypeError(f"every item must be a NewPerson, not {type(person).__name__}")


async def take_person(api: LimitedApi, person: PersonT, *, fit: bool) -> PersonT:
    """Return an item of ``new_persons`` whose picture was read if it is a file object; see :func:`taken`."""
    check_new_person(person)
    taking = None if person.image is None else taken(api, person.image, fit=fit)
    return person if taking is None else evolve(person, image=await taking)


async def sendable_person(api: LimitedApi, person: NewPerson, *, fit: bool, shard: str = "") -> NewPerson:
    """Return a person whose picture, if there is one, can be sent more than once, and fits if it is to be made to.

    Args:
        api: What the person is created with.
        person: The person.
        fit: Whether to make the picture fit.
        shard: The group, if not those that the person names.
    """
    if person.image is None:
        return person
    fields = _fields(person, [shard] if shard else person.group_ids)
    return evolve(person, image=await sendable(api, person.image, NEW_PERSON, fields, fit=fit))


def _fields(person: NewPerson, group_ids: Sequence[str]) -> Fields:
    return {
        "group_ids": group_ids,
        "person_id": person.person_id,
        "person_name": person.person_name,
        "tag": person.tag,
    }


async def create_person(
    api: LimitedApi, person: NewPerson, group_ids: Sequence[str], *, reserve: bool = True
) -> NewPersonResult:
    """Create a person in groups that the ledger says have room for one more.

    Args:
        api: What the person is created with.
        person: The person.
        group_ids: The groups.
        reserve: False where the room that the person takes was reserved before.
    """
    with await api.ledger.person(group_ids) if reserve else Reservation.of_nothing(1) as reservation:
        result = await api.new_person(
            person.person_id, group_ids, person.image, person_name=person.person_name, tag=person.tag
        )
        if reserve:
            reservation.commit(1, result.group_ids)
    if not result.meta.settled:  # as nearly always; then the person has no other face
        api.ledger.learn(person.person_id, [result.face_id] if result.face_id else [])
    return result


@define(eq=False)
class NewPersonRequest:
    """A newperson request that can be sent again after an outage, until it is known what became of it.

    Attributes:
        person: The person, whose picture can be sent more than once.
        group_ids: The groups.
        in_doubt: Whether it was sent before, and may have had its effect.
    """

    api: LimitedApi
    person: NewPerson
    group_ids: Sequence[str]
    in_doubt: bool = False

    async def send(self) -> NewPersonResult:
        """Send it, and find out what became of it if an earlier sending may have had its effect.

        Raises:
            CallError: With ``maybe_applied`` as long as it is not known what became of it.
            FaceError, ValueError: Otherwise as ``new_person``.
        """
        try:
            return await create_person(self.api, self.person, self.group_ids, reserve=not self.in_doubt)
        except CallError as error:
            if self.in_doubt and judge_error(error).phase is Phase.ANSWERED:
                return await self._settle(error)
            self.in_doubt = self.in_doubt or error.maybe_applied
            if self.in_doubt:
                raise error.in_doubt() from None
            raise

    async def _settle(self, error: CallError) -> NewPersonResult:
        images = [] if self.person.image is None else [self.person.image]
        fields = _fields(self.person, self.group_ids)
        finding = await settle(self.api, Doubt(NEW_PERSON.name, fields, images, error))
        if isinstance(finding.result, NewPersonResult):
            return with_meta(finding.result, Meta(attempts=error.attempts, settled=finding.how))
        raise error if finding.certain else error.in_doubt() from None
