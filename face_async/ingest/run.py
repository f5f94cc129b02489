"""A run: list what there is, send what is new, and come to the same end however often it is killed."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Self, TypeAlias, TypedDict, Unpack

import anyio
from attrs import frozen

from face_async.bulk.once import EnteredOnce
from face_async.bulk.outage import PROBE_DELAY, SINGLE_ATTEMPT, OutageHandler, RunEndedError
from face_async.bulk.outcomes import MAX_AT_ONCE, Outcomes
from face_async.ingest import queries
from face_async.ingest.audit import check_server, check_server_if_possible
from face_async.ingest.enroller import Enroller, PersonQueue
from face_async.ingest.journal import Journal, State, journals
from face_async.ingest.parts import Shard
from face_async.ingest.report import Progress, write_failures
from face_async.ingest.rows import BadRow
from face_async.ingest.schema import JournalError, Project
from face_async.ingest.sources import read_source
from face_async.limits import check_group_ids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from face_async.ingest.journal import Unit
    from face_async.ingest.queries import Listed
    from face_async.ingest.report import Phase, Summary
    from face_async.ingest.sources import Source
    from face_async.session import FaceSession

_LISTED_AT_ONCE = 2_000
_READ_AT_ONCE = 500


_Turn: TypeAlias = tuple[PersonQueue, bool]
"""The next turn of a person's queue, and whether it is about what is in doubt."""


class RunOptions(TypedDict, total=False):
    """The keyword arguments that :func:`ingest` and :func:`retry_failed` share.

    Attributes:
        max_at_once: How many requests may be under way at once, 1 or more, 64 by default; their pictures are in
            memory, at most 1.5 MB a request.
        pack: False (the default is True) sends every picture alone.
        fit: Makes pictures that are too large for a request smaller, as :func:`~face_async.fit_image` does; otherwise
            they fail with code 23. Needs Pillow (extra ``server``).
        shard: ``(rank, world)``: enroll only every ``world``-th person, chosen by a hash of the person's id. Each rank
            from 0 to ``world - 1`` needs a journal of its own.
        on_progress: Called with the summary after every step.
        probe_delay: Seconds after which a service that is away is probed for the first time, 1 by default; every
            further pause is twice as long, a minute at most.
    """

    max_at_once: int
    pack: bool
    fit: bool
    shard: tuple[int, int]
    on_progress: Callable[[Summary], object] | None
    probe_delay: float


@frozen(kw_only=True)
class _Settings:
    """All that a run is told, beside its session and its source; with the defaults of :class:`RunOptions`."""

    journal: str | os.PathLike[str]
    group_ids: Sequence[str] = ()
    dry_run: bool = False
    allow_outside: bool = False
    retry: bool = False
    max_at_once: int = MAX_AT_ONCE
    pack: bool = True
    fit: bool = False
    shard: tuple[int, int] = (0, 1)
    on_progress: Callable[[Summary], object] | None = None
    probe_delay: float = PROBE_DELAY


def ingest(
    session: FaceSession,
    source: Source | None,
    *,
    journal: str | os.PathLike[str],
    group_ids: Sequence[str] = (),
    dry_run: bool = False,
    allow_outside: bool = False,
    **options: Unpack[RunOptions],
) -> Ingestion:
    """Enroll the pictures of a folder or manifest, each once, in a run that may be killed and begun again at any time.

    ::

        async with ingest(session, "people/", journal="enroll.journal", group_ids=["staff"]) as run:
            async for unit in run:                      # or: summary = await run.finish()
                print(unit.person_id, unit.source, unit.state, unit.reason or "")
        print(run.summary)

    Persons who do not exist are created in their groups; those who do are left as they are. Pictures of one person
    share requests. What was sent is noted in the journal, so that the next run with the same journal goes on where
    this one ends, and finds out what became of the requests that were under way. What failed is tried again only by
    :func:`retry_failed`, or if its file has changed; it counts until its folder or manifest names it no more.

    While the service is away the run waits for it, as long as it takes. Errors after which no call can succeed (such
    as a wrong key) end the run; the journal is kept.

    Args:
        session: What to enroll with.
        source: A folder with a sub-folder for each person, a manifest (see :mod:`face_async.ingest.sources`), or
            an iterable of :class:`Row`; a worker thread reads it. None lists nothing: the run goes on with what the
            journal knows.
        journal: The journal's file; made when there is none.
        group_ids: The groups for rows that name none, and so for folders.
        dry_run: Does everything but send: units that would be sent end as PENDING. The journal is not changed.
        allow_outside: Whether paths and links may lead out of the folder or of the manifest's folder; otherwise such
            pictures are bad rows.
        **options: See :class:`RunOptions`.

    Raises:
        TypeError, ValueError: An argument is wrong.
        JournalError: When it is entered: the journal is another project's, in use, or damaged. While it runs: the
            disk is full, or the server does not have what the journal says that it has.
        OSError: While it runs: the source cannot be read.
        FaceError: While it runs: whatever ends it.
    """
    settings = _Settings(journal=journal, group_ids=group_ids, dry_run=dry_run, allow_outside=allow_outside, **options)
    return Ingestion(session, source, settings)


def retry_failed(session: FaceSession, *, journal: str | os.PathLike[str], **options: Unpack[RunOptions]) -> Ingestion:
    """Try again exactly what has failed, with the files as they are now; the arguments are those of :func:`ingest`.

    Bad rows are left out: mend the manifest and :func:`ingest` it again.
    """
    return Ingestion(session, None, _Settings(journal=journal, retry=True, **options))


class Ingestion(EnteredOnce):
    """A run, as :func:`ingest` makes it: an asynchronous context manager, and an iterator over finished units.

    Every unit comes once its end is in the journal: DONE, FAILED, COLLAPSED or, if it could not be told, AMBIGUOUS.
    Leaving the block early ends the run at once; what was under way is settled by the next one.
    """

    def __init__(self, session: FaceSession, source: Source | None, settings: _Settings) -> None:
        if settings.group_ids:
            check_group_ids(settings.group_ids, session.limits)
        self._session = session
        self._source = source
        self._settings = settings
        self._limits = session.limits
        self._shard = Shard(*settings.shard)
        project = Project(session.appid, session.bucket, self._shard.rank, self._shard.world)
        self._journal = Journal(settings.journal, project, dry=settings.dry_run)
        self._outages = OutageHandler(session.probe, probe_delay=settings.probe_delay, on_change=self._tell)
        self._enroller = Enroller(
            session, self._journal, self._outages, pack=settings.pack, fit=settings.fit, dry=settings.dry_run
        )
        self._outcomes = self.hold(Outcomes(self._take, self._turns(), max_at_once=settings.max_at_once))
        self._ready: deque[Unit] = deque()
        self._in_doubt = 0
        self._settled = anyio.Event()
        self._progress = Progress()
        self._stack = contextlib.AsyncExitStack()
        super().__init__("ingest", "async with ingest(...) as run:")

    async def __aenter__(self) -> Self:
        self.enter_once()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._journal)
            stack.push_async_callback(self._close)
            await stack.enter_async_context(self._outcomes)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Unit:
        self.check_entered()
        while not self._ready:
            try:
                outcome = await anext(self._outcomes)
            except StopAsyncIteration:
                await self._recount()
                self._enter("ended")
                raise
            if outcome.error is not None:
                self._outages.stop()
                raise outcome.error
            self._ready.extend(outcome.unwrap())
        return self._ready.popleft()

    async def finish(self) -> Summary:
        """Run to the end, and return the summary."""
        async for _ in self:
            pass
        return self.summary

    def stop(self) -> None:
        """Begin nothing new; the iteration ends once the requests that are under way have ended."""
        if not self._outages.stopping:
            self._outages.stop()
            self._tell()

    @property
    def journal(self) -> str:
        """The journal's file."""
        return self._journal.path

    @property
    def summary(self) -> Summary:
        """The present state of the run."""
        return self._progress.summary(stopping=self._outages.stopping, away=self._outages.away)

    async def copy_journal(self, path: str | os.PathLike[str]) -> None:
        """Copy the journal as it is now into a file, which is made, or replaced as a whole.

        Raises:
            JournalError: It cannot be read or written.
        """
        await self._journal.copy_into(path)

    async def write_failures(self, path: str | os.PathLike[str]) -> int:
        """Write what failed up to now into a CSV file; as :func:`~face_async.ingest.report.write_failures`."""
        sources = [self._source] if isinstance(self._source, str | os.PathLike) else []
        return await write_failures(self._journal, path, sources=sources)

    async def failures(self, at_most: int) -> list[tuple[str, str, str, str]]:
        """Return the first of what :meth:`write_failures` writes: person id, source, code and reason of each."""
        return await self._journal.do(lambda db: list(islice(queries.failures(db), at_most)))

    # Listing

    async def _list(self, source: Source) -> None:
        """Note all rows of the source, some at a time."""
        settings = self._settings
        origin = queries.origin_of(source, self._journal.path)
        await self._journal.do(partial(queries.begin_listing, origin=origin))
        self._progress.passed_over = 0
        rows = read_source(
            source,
            group_ids=settings.group_ids,
            limits=self._limits,
            pass_over=self._progress.pass_over,
            allow_outside=settings.allow_outside,
        )
        ours = (row for row in rows if isinstance(row, BadRow) or self._shard.has(row.person_id))
        listed = map(queries.look_at, ours)
        try:
            while not self._outages.stopping:
                count = await journals.run(self._list_some, listed, origin)
                self._progress.listed += count
                self._tell()
                if count < _LISTED_AT_ONCE:
                    await self._journal.do(queries.end_listing)
                    break
        finally:
            # A thread that cancellation did not wait for still reads: then the generator is not there to be closed.
            with contextlib.suppress(ValueError):
                rows.close()

    def _list_some(self, rows: Iterator[Listed], origin: int | None) -> int:
        some = list(islice(rows, _LISTED_AT_ONCE))
        self._journal.do_now(partial(queries.list_rows, rows=some, origin=origin))
        return len(some)

    # Sending

    async def _turns(self) -> AsyncGenerator[_Turn]:
        """Yield all there is to do: first what a former run left in doubt, person by person."""
        if self._settings.retry:
            await self._journal.do(queries.reopen_failed)
        elif self._source is not None:
            await self._list(self._source)
        await self._recount()
        self._enter("sending")
        if not await self._has_its_server():
            return
        async with contextlib.aclosing(self._walk(State.AMBIGUOUS)) as turns:
            async for turn in turns:
                self._in_doubt += 1
                yield turn
        while self._in_doubt:
            self._settled = anyio.Event()
            await self._settled.wait()
        await self._recount()
        async with contextlib.aclosing(self._walk(State.PENDING)) as turns:
            async for turn in turns:
                yield turn

    async def _has_its_server(self) -> bool:
        """Check that the journal is the server's; False when the run was told to stop instead."""
        try:
            if self._settings.dry_run:
                await check_server_if_possible(self._journal, self._session.with_options(retry=SINGLE_ATTEMPT))
            else:
                await check_server(self._journal, self._session, self._outages)
        except RunEndedError as ended:
            if ended.error is not None:
                raise ended.error from None
            return False
        return True

    async def _walk(self, state: State) -> AsyncGenerator[_Turn]:
        queue: PersonQueue | None = None
        after = (0, 0)
        failed_only = self._settings.retry and state is State.PENDING
        while not self._outages.stopping:
            query = partial(queries.turns_of, state=state, after=after, limit=_READ_AT_ONCE, failed_only=failed_only)
            found = await self._journal.do(query)
            if not found:
                return
            last = found[-1][1]
            if len(found) == _READ_AT_ONCE and found[0][1].person != last.person:
                found = [(person, unit) for person, unit in found if unit.person != last.person]  # may have more units
            after = (found[-1][1].person, found[-1][1].id)
            for person, pairs in groupby(found, itemgetter(0)):
                if queue is None or queue.person_id != person.person_id:
                    queue = PersonQueue(person)
                units = (unit for _, unit in pairs)
                while some := tuple(islice(units, self._limits.max_faces_per_person)):
                    queue.waiting.append(some)
                    yield queue, state is State.AMBIGUOUS

    async def _take(self, turn: _Turn) -> list[Unit]:
        """Take a turn, and return the units that have come to an end."""
        queue, in_doubt = turn
        try:
            do = self._enroller.settle if in_doubt else self._enroller.enroll
            units = [] if self._outages.stopping else await do(queue)
        except RunEndedError as ended:
            if ended.error is not None:
                self._outages.stop()
                raise ended.error from None
            units = []
        finally:
            if in_doubt:
                self._in_doubt -= 1
                self._settled.set()
        self._progress.count(units, in_doubt=in_doubt)
        self._tell()
        return units

    # Counting

    async def _recount(self) -> None:
        """Take the counts from the journal, where they are exact."""
        await self._journal.do(self._progress.recount)

    async def _close(self) -> None:
        """Count a last time before the journal is closed, if it was not done."""
        if self._progress.phase != "ended":
            with anyio.CancelScope(shield=True), contextlib.suppress(JournalError):
                await self._recount()
            self._enter("ended")

    def _enter(self, phase: Phase) -> None:
        self._progress.enter(phase)
        self._tell()

    def _tell(self) -> None:
        if self._settings.on_progress is not None:
            self._settings.on_progress(self.summary)
