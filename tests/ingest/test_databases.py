"""A journal belongs to a server's database: it never says that something is enrolled which is not in there."""

from __future__ import annotations

import contextlib
import sqlite3

import httpx
import pytest
from doubles import CREDENTIALS
from ingestkit import enrolled, finished, serving, write_people
from serverkit import picture

from face_async import Credentials, FaceSession
from face_async.ingest import Difference, JournalError, merge_journals, verify
from face_async.server import Store

pytestmark = pytest.mark.anyio


class Anonymous(httpx.AsyncBaseTransport):
    """A server that does not state which database it has, as the hosted service did not."""

    def __init__(self, inner):
        self._inner = inner

    async def handle_async_request(self, request):
        response = await self._inner.handle_async_request(request)
        response.headers.pop("x-face-database", None)
        return response


@contextlib.asynccontextmanager
async def serving_namelessly(store):
    async with serving(store) as (_, network):
        transport = Anonymous(network)
        options = {"base_url": "http://localhost", "transport": transport}
        async with FaceSession("123456", "test", CREDENTIALS, **options) as session:
            yield session, network


SERVERS = [serving, serving_namelessly]


@pytest.fixture
def elsewhere():
    with Store() as opened:
        yield opened


async def differences_of(session, journal, **options):
    async with verify(session, journal, **options) as differences:
        return [difference async for difference in differences]


@pytest.mark.parametrize("server", SERVERS)
async def test_what_another_database_has_does_not_count(server, store, elsewhere, people, run_on):
    """Neither on an empty server, nor on one that has other persons: the run ends before it says anything."""
    async with server(store) as (session, _):
        await finished(run_on(session, people))
    async with server(elsewhere) as (session, _):
        with pytest.raises(JournalError, match=r"the server does not have them: .* --repair"):
            await finished(run_on(session, people))
        await session.new_person("person0", ["staff"], picture(0, 0))
        with pytest.raises(JournalError, match="it has another database now"):
            await finished(run_on(session, people))
    assert enrolled(elsewhere).keys() == {"person0"}


async def test_a_dry_run_takes_nothing_of_another_database_for_enrolled_either(store, elsewhere, people, run_on):
    """But without an answer it says what the journal says, and waits for nobody."""
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        assert (await finished(run_on(session, people, dry_run=True))).complete
    async with serving(elsewhere) as (session, _):
        with pytest.raises(JournalError, match="the server does not have them"):
            await finished(run_on(session, people, dry_run=True))
    async with serving(store, plan=lambda _: "refuse") as (session, network):
        assert (await finished(run_on(session, people, dry_run=True))).complete
    assert len(network.calls) == 1


@pytest.mark.parametrize("server", SERVERS)
async def test_a_journal_goes_on_with_its_own_database(server, store, people, run_on, tmp_path):
    """However the server's address and process have changed; and one person who is known is enough."""
    async with server(store) as (session, _):
        await finished(run_on(session, people))
    write_people(people, 1, 2, first=9)
    async with server(store) as (session, network):
        await session.del_person("person2")
        network.calls.clear()
        summary = await finished(run_on(session, people))
    assert (14, 2) == (summary.done, summary.added)
    assert network.calls.count("getfaceids") <= 2


async def test_a_database_that_states_its_identity_is_trusted_whatever_was_deleted(store, people, run_on):
    """Its persons may have been deleted on purpose."""
    async with serving(store) as (session, network):
        await finished(run_on(session, people))
        for number in range(3):
            await session.del_person(f"person{number}")
        network.calls.clear()
        assert (await finished(run_on(session, people))).complete
        assert network.calls == ["getgroupids"]


async def test_a_copy_of_a_database_is_the_database(store, elsewhere, people, run_on):
    """A backup that was brought back goes on."""
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
    elsewhere.restore(store.snapshot())
    async with serving(elsewhere) as (session, network):
        assert (await finished(run_on(session, people))).complete
    assert network.calls == ["getgroupids"]


async def test_no_two_databases_state_the_same_identity(store, elsewhere):
    assert len(store.identity()) == 32
    assert store.identity() == store.identity() != elsewhere.identity()


async def test_only_who_has_signed_learns_the_identity(store):
    async with serving(store) as (session, network):
        answer = await session.request("getgroupids", {})
        assert answer.headers["x-face-database"] == store.identity()
        stranger = Credentials(CREDENTIALS.secret_id, "wrong")
        options = {"base_url": "http://localhost", "transport": network}
        async with FaceSession("123456", "test", stranger, **options) as other:
            answer = await other.request("getgroupids", {})
    assert "x-face-database" not in answer.headers


async def test_a_journal_of_an_earlier_version_is_brought_to_this_one(store, people, run_on, journal):
    """Its server is then known by a person, and by its identity from then on."""
    async with serving(store) as (session, network):
        await finished(run_on(session, people))
        with contextlib.closing(sqlite3.connect(journal)) as db:
            db.execute("ALTER TABLE project DROP COLUMN database")
            db.execute("ALTER TABLE units DROP COLUMN origin")
            db.execute("PRAGMA user_version = 1")
            db.commit()
        network.calls.clear()
        assert (await finished(run_on(session, people))).complete
        assert network.calls == ["getgroupids", "getfaceids"]
        network.calls.clear()
        assert (await finished(run_on(session, people))).complete
        assert network.calls == ["getgroupids"]


async def test_merged_journals_keep_their_database(store, people, run_on, journal, tmp_path):
    async with serving(store) as (session, network):
        await finished(run_on(session, people))
        merge_journals([journal], tmp_path / "merged")
        network.calls.clear()
        assert (await finished(run_on(session, people, journal=tmp_path / "merged"))).complete
    assert network.calls == ["getgroupids"]


@pytest.mark.parametrize("server", SERVERS)
async def test_repairing_enrolls_again_what_is_missing(server, store, people, run_on, journal):
    """Persons, faces and groups that are gone; what somebody else has added stays, and is still a difference."""
    async with server(store) as (session, _):
        await finished(run_on(session, people))
        await session.del_person("person0")
        first, *_ = await session.get_face_ids("person1")
        await session.del_face("person1", [first])
        await session.del_group_ids("person2", ["staff"])
        extra = (await session.add_face("person2", [picture(2, 30)])).face_ids
        assert len(await differences_of(session, journal, repair=True)) == 3
        summary = await finished(run_on(session, people))
        assert (12, 5) == (summary.done, summary.added)
        assert [Difference("person2", extra=extra)] == await differences_of(session, journal)
    assert {"person0": {0, 1, 2, 3}, "person1": {0, 1, 2, 3}, "person2": {0, 1, 2, 3, 30}} == {
        person_id: set(shots) for person_id, shots in enrolled(store).items()
    }


@pytest.mark.parametrize("server", SERVERS)
async def test_repairing_moves_everybody_to_a_new_database(server, store, elsewhere, people, run_on):
    async with server(store) as (session, _):
        await finished(run_on(session, people))
    async with server(elsewhere) as (session, _):
        run = run_on(session, people)
        assert all(difference.absent for difference in await differences_of(session, run.journal, repair=True))
        assert 12 == (await finished(run)).added
        assert [] == await differences_of(session, run.journal)
        assert (await finished(run_on(session, people))).complete


async def test_what_is_the_same_needs_no_repair(store, people, run_on, journal):
    """It changes nothing."""
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        assert [] == await differences_of(session, journal, repair=True)
        summary = await finished(run_on(session, people))
    assert (0, 12) == (summary.added, summary.done)
