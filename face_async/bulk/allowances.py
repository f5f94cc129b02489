"""The counts behind the ledger, and who may go on next: plain bookkeeping that knows no tasks and no service."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, NamedTuple

from attrs import define, field, frozen

from face_async.errors import FaceLimitError, GroupLimitError, LimitError, PersonLimitError, ReturnCode, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from face_async.errors import FaceError
    from face_async.limits import ServiceLimits


class Key(NamedTuple):
    """What is counted.

    Attributes:
        kind: ``"faces"`` of a person, ``"persons"`` of a group, or ``"groups"`` of the appid.
        id: The person or the group; ``""`` for the groups of the appid.
    """

    kind: Literal["faces", "persons", "groups"]
    id: str = ""


GROUPS = Key("groups")
"""The groups of the appid."""


@frozen
class Balance:
    """The counts of one key.

    Attributes:
        confirmed: What the service holds for certain.
        reserved: What is in flight.
        ambiguous: What may have happened; the next listing will tell.
        limit: The most that the service allows.
        listed: Whether the counts are trusted; if not, nothing is granted before the next listing.
    """

    confirmed: int
    reserved: int
    ambiguous: int
    limit: int
    listed: bool = True


@frozen
class Kind:
    """What is special about one kind of keys.

    Attributes:
        error: What is raised when there is no room.
        limit: How much room there is.
        none_code: The return code by which the service may say that a list is empty, None when it has none.
        full: The message's first half: what is full.
        advice: Its second half: what to do.
    """

    error: type[LimitError]
    limit: Callable[[ServiceLimits], int]
    none_code: int | None
    full: str
    advice: str


KINDS: Mapping[str, Kind] = {
    "faces": Kind(
        FaceLimitError,
        lambda limits: limits.max_faces_per_person,
        None,
        "person {id} has {confirmed:,} of the {limit:,} faces that a person may have",
        "delete faces that are no longer needed, or keep only the best pictures",
    ),
    "persons": Kind(
        PersonLimitError,
        lambda limits: limits.max_persons_per_group,
        ReturnCode.ERROR_GROUP_NOT_EXISTED,
        "group {id} has {confirmed:,} of the {limit:,} persons that a group may have",
        "put the person in another group, or delete persons that are no longer needed",
    ),
    "groups": Kind(
        GroupLimitError,
        lambda limits: limits.max_groups_per_appid,
        ReturnCode.ERROR_GROUPLIST_NOT_EXISTED,
        "the appid has {confirmed:,} of the {limit:,} groups that an appid may have",
        "put the person in groups that exist already",
    ),
}


@define(eq=False)
class Allowance:
    """The counts of one key as in :class:`Balance`, and the line of those who wait.

    Attributes:
        ids: The ids of what is confirmed, as far as they are known; persons, of whom a group has thousands, are only
            counted.
        ids_complete: Whether those are all.
        outdated: Whether persons may have left since it was counted; such a count refuses nobody.
        listing: Whether somebody is asking the service for a list.
        line: Who waits, first come first served.
    """

    key: Key
    limit: int
    confirmed: int = 0
    reserved: int = 0
    ambiguous: int = 0
    listed: bool = False
    ids: set[str] = field(factory=set)
    ids_complete: bool = False
    outdated: bool = False
    listing: bool = False
    line: OrderedDict[Ticket, None] = field(factory=OrderedDict, repr=False)  # a dict finds its first in linear time
    _distrusted: bool = field(default=False, init=False)

    @property
    def kind(self) -> Kind:
        """What is special about its key."""
        return KINDS[self.key.kind]

    @property
    def balance(self) -> Balance:
        """The counts as they are now."""
        return Balance(self.confirmed, self.reserved, self.ambiguous, self.limit, self.listed)

    @property
    def free(self) -> int:
        """How much may be granted."""
        return self.limit - self.confirmed - self.reserved - self.ambiguous

    @property
    def idle(self) -> bool:
        """Whether nobody uses it."""
        return not (self.reserved or self.line or self.listing)

    @property
    def first(self) -> Ticket | None:
        """Who is first in line."""
        return next(iter(self.line), None)

    def begin_listing(self) -> None:
        """Note that somebody asks for a list; nothing is in flight meanwhile."""
        self.listing = True
        self.outdated = self._distrusted = False

    def end_listing(self, ids: Collection[str] | None) -> None:
        """Count anew by a list, or leave all as it was when none came."""
        self.listing = False
        if ids is not None:
            self.confirmed = len(ids)
            self.ambiguous = 0
            self.ids_complete = self.key.kind != "persons"
            self.ids = set(ids) if self.ids_complete else set()
            self.listed = not self._distrusted

    def commit(self, held: int, used: int, ids: Collection[str]) -> None:
        """Turn what was reserved into what is confirmed, as far as it was used."""
        # Two new persons may both have created the group that both were put in: it counts once.
        fresh = set(ids) - self.ids
        self.reserved -= held
        self.confirmed += used - len(ids) + len(fresh)
        if self.key.kind != "persons":
            self.ids |= fresh
            self.ids_complete = self.ids_complete and len(ids) == used

    def release(self, held: int) -> None:
        """Give back what was reserved."""
        self.reserved -= held

    def doubt(self, held: int) -> None:
        """Turn what was reserved into what is ambiguous."""
        self.reserved -= held
        self.ambiguous += held

    def forget(self) -> None:
        """Distrust all but what is in flight."""
        self.listed = False
        self._distrusted = True
        self.confirmed = self.ambiguous = 0
        self.ids = set()

    def refusal(self, need: int) -> LimitError:
        """Return the error for a request that there can be no room for."""
        full = self.kind.full.format(id=quoted(self.key.id), confirmed=self.confirmed, limit=self.limit)
        return self.kind.error(f"{full}, which leaves no room for {need:,} more; {self.kind.advice}")


@define(eq=False)
class Ticket:
    """A request for room under several keys at once, which waits in the line of each.

    Attributes:
        allowances: Where.
        count: How much is wanted of each; of the groups, those that do not exist.
        at_least: How much of it will do.
        groups: The groups to be in, for a person.
        wake: Called when there is news for whoever waits.
        granted: How much was granted of each, empty until then.
        failure: Why nothing is granted, once that is certain.
    """

    allowances: Sequence[Allowance]
    count: int = 1
    at_least: int = 1
    groups: frozenset[str] = frozenset()
    wake: Callable[[], object] = lambda: None
    granted: Mapping[Allowance, int] = field(factory=dict[Allowance, int])
    failure: FaceError | None = None
    # Of them, those that keep it waiting, and of these those that it must have listed, when it was last asked.
    _unready: dict[Allowance, None] = field(factory=dict[Allowance, None], init=False)
    _unlisted: dict[Allowance, None] = field(factory=dict[Allowance, None], init=False)

    @property
    def decided(self) -> bool:
        """Whether it was granted or has failed."""
        return bool(self.granted) or self.failure is not None

    def enter(self) -> None:
        """Enter all lines in one step, so that the request that came first is first in each of its lines."""
        for allowance in self.allowances:
            allowance.line[self] = None

    def withdraw(self) -> None:
        """Leave all lines, and give back what was granted at the same moment."""
        for allowance, amount in self.granted.items():
            allowance.release(amount)
        self.granted = {}
        self.failure = None  # or it would hang on itself: by its traceback on the task that holds the ticket
        self._leave()

    def decide(self, *changed: Allowance) -> bool:
        """Grant it or let it fail as far as the counts allow, and return whether that was possible.

        Args:
            *changed: What has changed since it was last asked; all of them without arguments.
        """
        for allowance in changed or self.allowances:
            if allowance.listed and allowance.confirmed + self._need(allowance) > allowance.limit:
                if not allowance.outdated:
                    self.fail(allowance.refusal(self._need(allowance)))
                    return True
                allowance.forget()
            self._look_at(allowance)
        if not self._unready:
            for allowance in self.allowances:  # what was ready may have been forgotten since
                self._look_at(allowance)
            if not self._unready:
                self._grant()
                return True
        if self.to_list() is not None:
            self.wake()
        return False

    def to_list(self) -> Allowance | None:
        """Return an allowance that it must have listed, being the first in line there, before it can go on."""
        while self._unlisted:
            allowance = next(iter(self._unlisted))
            if self._must_list(allowance):
                return allowance
            del self._unlisted[allowance]
        return None

    def _look_at(self, allowance: Allowance) -> None:
        is_ready = allowance.first is self and not allowance.listing and self._fits(allowance)
        for kept, holds in ((self._unready, not is_ready), (self._unlisted, self._must_list(allowance))):
            if holds:
                kept[allowance] = None
            else:
                kept.pop(allowance, None)

    def _must_list(self, allowance: Allowance) -> bool:
        # While something is in flight a list is not certain, and its end may be all that is needed.
        return allowance.first is self and not (allowance.listing or allowance.reserved or self._fits(allowance))

    def fail(self, failure: FaceError) -> None:
        """Leave with an error."""
        self.failure = failure
        self._leave()
        self.wake()

    def _leave(self) -> None:
        for allowance in self.allowances:
            allowance.line.pop(self, None)

    def _grant(self) -> None:
        count = min([self.count, *(allowance.free for allowance in self.allowances if allowance.key != GROUPS)])
        wanted = {
            allowance: self._need(allowance) if allowance.key == GROUPS else count for allowance in self.allowances
        }
        self.granted = {allowance: amount for allowance, amount in wanted.items() if amount}
        for allowance, amount in self.granted.items():
            allowance.reserved += amount
        self._leave()
        self.wake()

    def _need(self, allowance: Allowance) -> int:
        """Return the least that will do; a group costs nothing once it exists."""
        return len(self.groups - allowance.ids) if allowance.key == GROUPS else self.at_least

    def _fits(self, allowance: Allowance) -> bool:
        return allowance.listed and allowance.free >= self._need(allowance)
