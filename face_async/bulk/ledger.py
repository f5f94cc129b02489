"""Room for faces, persons and groups: reserved before anything is sent, so that no limit is run into.

For every :class:`Key` (a person's faces, a group's persons, the appid's groups) the ledger keeps::

    confirmed + reserved + ambiguous <= limit

*Confirmed* is what the service listed and what was committed since, *reserved* is in flight, *ambiguous* may have
happened. Nobody is refused for what is reserved or ambiguous: they wait for the one, and have the other counted anew.

The service is asked for a list only while nothing is in flight under that key: a listed face may be one of those just
reserved, and no arithmetic could tell, but once nothing is in flight a list is exact. A request that needs a list is
first in line, so nothing new is granted before it, and what is in flight comes to an end.

A reservation for several keys stands in all their lines at once and takes from all of them in one step. All enter
their lines in one step too, so whoever came first of all is first in every line of theirs: no deadlock can arise.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Self

import anyio

from face_async._call.home import Home
from face_async.bulk.allowances import GROUPS, KINDS, Allowance, Balance, Key, Ticket
from face_async.errors import CallError, FaceError, LimitError, NotFoundError, ServiceError
from face_async.limits import ServiceLimits, check_count, check_group_ids, check_id, check_image_count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import TracebackType

    from face_async.endpoints import FaceApi

__all__ = ["GROUPS", "Balance", "Key", "LimitLedger", "Reservation"]


class Reservation:
    """Room that is held until one of its four ends: commit, release, doubt or refused.

    The ends are synchronous, so that they work under cancellation. As a context manager it ends by itself if nothing
    else ended it: with :meth:`release` on a clean exit or an error of this package that had no effect, with
    :meth:`refused` on the server's own limit refusal, and with :meth:`doubt` on whatever else ends the block, since a
    cancelled call may have had its effect. Do not ask for more room under the same key while holding some.

    Attributes:
        granted: How many faces there is room for; 1 for a person.
    """

    def __init__(
        self, held: Mapping[Allowance, int], granted: int, settle: Callable[[Iterable[Allowance]], None]
    ) -> None:
        self.granted = granted
        self._held = held
        self._settle = settle
        self._end = ""

    @classmethod
    def of_nothing(cls, granted: int) -> Reservation:
        """Return a reservation that holds no room: for faces that may be there already."""
        return cls({}, granted, lambda _: None)

    def commit(self, used: int, ids: Collection[str] = ()) -> None:
        """Say that it happened; what was not used is given back.

        Args:
            used: How many faces were added, 0 to ``granted``; 1 if the person was created.
            ids: The faces' ids, as far as they are known; for a person the groups that the person was put in, all
                when empty.

        Raises:
            ValueError: More was used than granted, or there are more ids than that.
        """
        if not 0 <= used <= self.granted:
            raise ValueError(f"used must be 0 to {self.granted}, what was granted, not {used}")
        groups = {allowance.key.id for allowance in self._held if allowance.key.kind == "persons"}
        joined = groups.intersection(ids or groups) if used else set[str]()
        if not groups and len(ids) > used:
            raise ValueError(f"{len(ids)} ids are more than the {used} faces that were added")
        self._finish("committed")
        for allowance, amount in self._held.items():
            if allowance.key.kind == "faces":
                allowance.commit(amount, used, ids)
            elif allowance.key.kind == "persons":
                allowance.commit(amount, int(allowance.key.id in joined), ())
            else:
                allowance.commit(amount, len(joined), joined)
        self._settle(self._held)

    def release(self) -> None:
        """Say that nothing happened."""
        self._finish("released")
        for allowance, amount in self._held.items():
            allowance.release(amount)
        self._settle(self._held)

    def doubt(self) -> None:
        """Say that it may have happened: it counts as used until the service has been asked."""
        self._finish("doubted")
        for allowance, amount in self._held.items():
            allowance.doubt(amount)
        self._settle(self._held)

    def refused(self, error: LimitError | None = None) -> None:
        """Say that the server refused for want of room (-1309, -1310, -1311): another client may have filled it.

        Nothing is granted there before the service has been asked again.

        Args:
            error: The refusal, which tells persons from groups; None distrusts both.
        """
        self._finish("refused")
        for allowance, amount in self._held.items():
            allowance.release(amount)
            if error is None or isinstance(error, allowance.kind.error):
                allowance.forget()
        self._settle(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end:
            return
        if isinstance(error, LimitError) and isinstance(error, ServiceError):
            self.refused(error)
        elif error is None or (isinstance(error, FaceError) and not _may_have_happened(error)):
            self.release()
        else:
            self.doubt()

    def __repr__(self) -> str:
        keys = ", ".join(f"{allowance.key.kind} {allowance.key.id}".strip() for allowance in self._held)
        return f"<Reservation of {self.granted} for {keys}: {self._end or 'held'}>"

    def _finish(self, end: str) -> None:
        if self._end:
            raise RuntimeError(f"the reservation was {self._end} already; it has exactly one end")
        self._end = end


def _may_have_happened(error: FaceError) -> bool:
    return isinstance(error, CallError) and error.maybe_applied


class LimitLedger:
    """Keeps every person, group and the appid within the service's limits (Spec: 2), for all tasks of a program.

    A key is counted by one list call when it is first needed, however many tasks need it. What other clients add
    shows when the server refuses; what anyone deletes shows after :meth:`forget`. Works on asyncio and trio.

    Args:
        api: Where to ask for lists.
        limits: The service's limits.
        max_idle: How many keys that nobody uses are remembered, 0 or more; the longest unused are dropped first, and
            counted anew when they are needed again.
    """

    def __init__(self, api: FaceApi, limits: ServiceLimits = ServiceLimits(), *, max_idle: int = 4_096) -> None:
        if max_idle < 0:
            raise ValueError(f"max_idle must be 0 or more, not {max_idle}")
        self._api = api
        self._home = Home("ledger")
        self._limits = limits
        self._max_idle = max_idle
        self._busy: dict[Key, Allowance] = {}
        self._idle: OrderedDict[Key, Allowance] = OrderedDict()  # the longest unused first

    async def faces(self, person_id: str, count: int, *, at_least: int | None = None) -> Reservation:
        """Reserve room for faces of a person; wait while it is only reserved by others, first come first served.

        Args:
            person_id: The person.
            count: How many faces, 1 to 20.
            at_least: How many will do when there is no room for all, 1 to ``count``; all of them when None.

        Raises:
            FaceLimitError: The person has too many faces already.
            NotFoundError: No person of this id exists.
            TypeError, ValueError: A wrong argument.
            FaceError: Whatever else ``get_face_ids`` raises.
        """
        check_id("person_id", person_id, self._limits)
        check_count("count", count)
        least = count if at_least is None else at_least
        check_count("at_least", least)
        check_image_count(least, self._limits)
        if least > count:
            raise ValueError(f"at_least must be 1 to count, which is {count}, not {least}")
        return await self._admit(Ticket([self._allowance(Key("faces", person_id))], count, least))

    async def person(self, group_ids: Sequence[str]) -> Reservation:
        """Reserve room for one person in each of the groups, and for those groups that do not exist yet.

        All of it or nothing; waits while room is only reserved by others, first come first served.

        Args:
            group_ids: The groups, each once.

        Raises:
            PersonLimitError: A group is full.
            GroupLimitError: The appid has no room for the new groups.
            TypeError, ValueError: A wrong argument.
            FaceError: Whatever else ``get_person_ids`` and ``get_group_ids`` raise.
        """
        check_group_ids(group_ids, self._limits)
        groups = frozenset(group_ids)
        allowances = [self._allowance(Key("persons", group_id)) for group_id in group_ids]
        known = self._known(GROUPS)
        if known is None or not known.listed or groups - known.ids:
            allowances.append(self._allowance(GROUPS))
        return await self._admit(Ticket(allowances, groups=groups))

    def known_faces(self, person_id: str) -> frozenset[str] | None:
        """Return the ids of a person's faces, those listed and those committed since; None unless all are known.

        Faces that reservations still in flight may be adding are not among them.
        """
        allowance = self._known(Key("faces", person_id))
        if allowance is None or not allowance.listed or allowance.ambiguous or not allowance.ids_complete:
            return None
        return frozenset(allowance.ids)

    def learn(self, person_id: str, face_ids: Collection[str]) -> None:
        """Note all faces of a person, who need not be listed then: those of one who was just created, for instance."""
        key = Key("faces", person_id)
        self.forget(key)
        if key not in self._busy:
            allowance = self._allowance(key)
            allowance.begin_listing()
            allowance.end_listing(face_ids)
            self._put_aside(allowance)

    def assume_room(self, group_ids: Iterable[str]) -> None:
        """Take it that these groups exist and are empty, so that none is listed before the server refuses somebody.

        For one of many programs that fill the same groups: a list of 10,000 persons would say how full a group was,
        and not how full the others make it meanwhile. Only if no group has been used yet.
        """
        known = frozenset(group_ids)
        for key in (*(Key("persons", group_id) for group_id in known), GROUPS):
            if self._known(key) is None:
                allowance = self._allowance(key)
                allowance.begin_listing()
                allowance.end_listing(known if key is GROUPS else ())
                self._put_aside(allowance)

    def forget(self, *keys: Key) -> None:
        """Distrust what is known of these keys, of all without arguments: call it when anything was deleted.

        They are counted anew before anything is granted there again.
        """
        for key in keys or [*self._busy, *self._idle]:
            self._idle.pop(key, None)
            if key in self._busy:
                self._busy[key].forget()

    def forget_person(self, person_id: str) -> None:
        """Note that a person was deleted, or may have been.

        Nobody knows from which groups, so all of them are counted anew, but only before somebody would be refused.
        """
        self.forget(Key("faces", person_id))
        self.recount(*(allowance.key for allowance in (*self._busy.values(), *self._idle.values())))

    def recount(self, *keys: Key) -> None:
        """Note that persons have left these groups, or may have: they are counted anew before somebody is refused."""
        for key in keys:
            allowance = self._known(key)
            if allowance is not None and key.kind == "persons":
                allowance.outdated = True

    def snapshot(self, key: Key) -> Balance | None:
        """Return the counts of a key, None when nothing is known of it."""
        allowance = self._known(key)
        return None if allowance is None else allowance.balance

    def __repr__(self) -> str:
        reserved = sum(allowance.reserved for allowance in self._busy.values())
        waiting = len({ticket for allowance in self._busy.values() for ticket in allowance.line})
        known = len(self._busy) + len(self._idle)
        return f"<LimitLedger: {known} keys known, {len(self._busy)} in use, {reserved} reserved, {waiting} waiting>"

    def _known(self, key: Key) -> Allowance | None:
        return self._busy.get(key) or self._idle.get(key)

    def _allowance(self, key: Key) -> Allowance:
        allowance = self._busy.get(key)
        if allowance is None:
            allowance = self._idle.pop(key, None) or Allowance(key, KINDS[key.kind].limit(self._limits))
            self._busy[key] = allowance
        return allowance

    async def _admit(self, ticket: Ticket) -> Reservation:
        """Stand in line until the ticket is decided, and ask for the lists that the first in line must ask for."""
        self._home.enter()
        try:
            ticket.enter()
            ticket.decide()  # where there will be no room it fails at once, wherever it stands in line
            self._settle(ticket.allowances)
            while not ticket.decided:
                allowance = ticket.to_list()
                if allowance is not None:
                    await self._list(allowance)
                else:
                    news = anyio.Event()
                    ticket.wake = news.set
                    await news.wait()
        except BaseException:
            ticket.withdraw()
            self._settle(ticket.allowances)
            raise
        if ticket.failure is not None:
            # A copy: several tasks may raise it, and each adds its own traceback.
            raise copy.copy(ticket.failure)
        return Reservation(ticket.granted, ticket.granted[ticket.allowances[0]], self._settle)

    async def _list(self, allowance: Allowance) -> None:
        """Count an allowance anew by asking the service; its error is the answer for all who wait for it."""
        allowance.begin_listing()
        ids = None
        try:
            ids = await self._ids(allowance.key)
        except FaceError as error:
            self._fail(allowance, error)
            raise
        finally:
            allowance.end_listing(ids)
            self._settle([allowance])

    def _fail(self, allowance: Allowance, error: FaceError) -> None:
        waiting = list(allowance.line)
        for ticket in waiting:
            ticket.fail(error)
        for ticket in waiting:
            self._settle(ticket.allowances)

    async def _ids(self, key: Key) -> Collection[str]:
        try:
            if key.kind == "faces":
                return await self._api.get_face_ids(key.id)
            if key.kind == "persons":
                return await self._api.get_person_ids(key.id)
            return await self._api.get_group_ids()
        except NotFoundError as error:
            if error.code != KINDS[key.kind].none_code:
                raise
            return ()

    def _settle(self, allowances: Iterable[Allowance]) -> None:
        """Let those who are first in line go on as far as the counts allow, and put aside what nobody uses."""
        changed = list(allowances)
        while changed:
            allowance = changed.pop()
            ticket = allowance.first
            if ticket is not None:
                if ticket.decide(allowance):
                    changed += ticket.allowances
            elif allowance.idle:
                self._put_aside(allowance)

    def _put_aside(self, allowance: Allowance) -> None:
        if self._busy.get(allowance.key) is not allowance:
            return
        del self._busy[allowance.key]
        if allowance.listed:
            self._idle[allowance.key] = allowance
            if len(self._idle) > self._max_idle:
                self._idle.popitem(last=False)
