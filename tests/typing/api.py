"""The public names as a typed program uses them; only type-checked, never run."""

from __future__ import annotations

import ssl
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, assert_type

import httpx
import httpx2
from attrs import frozen
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from face_async import (
    AddFaceResult,
    AddGroupIdsResult,
    Answer,
    Attempt,
    Candidate,
    Credentials,
    DelGroupIdsResult,
    DelPersonResult,
    DetectResult,
    FaceError,
    FaceOutcome,
    FaceSession,
    GroupsResult,
    IdentifyResult,
    ImageFile,
    ImageSource,
    ImageUrl,
    LimitLedger,
    NewPerson,
    NewPersonResult,
    Outcome,
    RetryPolicy,
    ServiceLimits,
    ShardedGroup,
    Telemetry,
    Throttle,
    VerifyResult,
    sync,
)
from face_async.local import local_session
from face_async.testing import FaceServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def single_calls(session: FaceSession, file: ImageFile) -> None:
    added = await session.add_face("person0", [Path("b.jpg"), b"bytes", "c.jpg", ImageUrl("https://x/y.jpg"), file])
    assert_type(added, AddFaceResult)
    assert_type(added.faces, tuple[FaceOutcome, ...])
    assert_type((await session.identify("staff", Path("probe.jpg"))).best, Candidate | None)
    assert_type((await session.verify("person0", bytearray())).is_match, bool)
    assert_type((await session.compare(memoryview(b""), "https://x/y.jpg")).similarity, float)
    assert_type(await session.get_group_ids(), list[str])
    assert_type((await session.get_face_info("1")).glass, bool)
    assert_type(await session.detect("c.jpg", largest_only=True), DetectResult)
    assert_type((await session.detect(b"")).faces[0].age, int | None)
    assert_type(await session.add_group_ids("person0", ("staff",)), AddGroupIdsResult)
    assert_type(await session.del_group_ids("person0", ["staff"]), DelGroupIdsResult)
    assert_type((await session.multi_identify(["staff"], b"")).faces[0].best, Candidate | None)
    assert_type(await session.identify(["staff", "guests"], b""), IdentifyResult)
    assert_type(await session.request("detect", {"mode": "0"}, {"image": b""}), Answer)
    await session.new_person("person0", ["staff"], BytesIO(), person_name="Ada", tag="hq")


async def bulk(session: FaceSession, images: AsyncIterator[ImageSource]) -> None:
    async with session.identify_many(images, "staff", max_at_once=8, ordered=True) as found:
        async for outcome in found:
            assert_type(outcome, Outcome[ImageSource, IdentifyResult])
            assert_type(outcome.unwrap(), IdentifyResult)
            assert_type(outcome.error, FaceError | ValueError | None)
    async with session.detect_many(images) as detected:
        assert_type((await detected.collect())[0].unwrap(), DetectResult)
    async with session.add_faces([("person0", b"")]) as added:
        assert_type(await added.collect(), list[Outcome[tuple[str, bytes], FaceOutcome]])
    async with session.verify_many([("person0", Path("a.jpg"))]) as verified:
        async for one in verified:
            assert_type(one.result, VerifyResult | None)
        assert_type(verified.untaken, tuple[Outcome[tuple[str, Path], VerifyResult], ...])
    assert_type(await session.identify_in_groups(b"", ["staff"], top=3, errors="raise"), GroupsResult)
    async with session.new_persons([NewPerson("person0", ["staff"], Path("a.jpg"), tag="hq")]) as created:
        assert_type(await created.collect(), list[Outcome[NewPerson, NewPersonResult]])
    assert_type(session.ledger, LimitLedger)


class Visitor(NamedTuple):
    person_id: str
    photo: Path


@frozen
class Employee(NewPerson):
    number: int = 0


async def items_keep_their_types(session: FaceSession, visitors: AsyncIterator[Visitor]) -> None:
    """An outcome's item has the type that went in, so that its own attributes can be used."""
    async with session.identify_many([Path("a.jpg")], "staff") as found:
        async for outcome in found:
            assert_type(outcome.item, Path)
    mixed: list[Path | str] = [Path("a.jpg"), "b.jpg"]
    async with session.identify_many(mixed, "staff") as both:
        assert_type((await anext(both)).item, Path | str)
    async with session.detect_many(iter([BytesIO()])) as detected:
        assert_type((await anext(detected)).item, BytesIO)
    async with session.verify_many(visitors, progress=lambda _done, _total, one: one.item.photo) as verified:
        assert_type((await anext(verified)).item.photo, Path)
    async with session.add_faces(((path.name, path) for path in [Path("a.jpg")]), max_at_once=1) as added:
        assert_type((await anext(added)).item, tuple[str, Path])
    async with session.new_persons([Employee("person0", ["staff"], number=7)]) as created:
        assert_type((await anext(created)).item.number, int)
    group = ShardedGroup(session, "staff")
    async with group.new_persons([Employee("person0", number=7)]) as created:
        assert_type((await anext(created)).item, Employee)
    async with group.identify_many([Path("a.jpg")]) as sharded:
        assert_type((await anext(sharded)).item, Path)


def without_async(credentials: Credentials) -> None:
    with sync.FaceSession("1", "b", credentials, http="asyncio") as session:
        assert_type(session.identify("staff", Path("a.jpg")).best, Candidate | None)
        assert_type(session.with_options(deadline=1), sync.FaceSession)
        with session.identify_many([Path("a.jpg")], "staff", ordered=True) as found:
            for outcome in found:
                assert_type(outcome, Outcome[Path, IdentifyResult])
        with session.add_faces(((path.name, path) for path in [Path("a.jpg")]), on_outage="wait") as added:
            assert_type(added.collect(), list[Outcome[tuple[str, Path], FaceOutcome]])
    assert_type(sync.FaceSession.from_env(timeout=3).get_group_ids(), list[str])


async def shards(session: FaceSession, images: list[ImageSource]) -> None:
    group = ShardedGroup(session, "staff")
    assert_type(await group.shards(), list[str])
    assert_type(await group.new_person("person0", Path("a.jpg"), person_name="Ada"), NewPersonResult)
    async with group.new_persons([NewPerson("person1")], ordered=True) as created:
        assert_type((await anext(created)).unwrap(), NewPersonResult)
    assert_type(await group.del_person("person0"), DelPersonResult)
    async for person_id in group.person_ids():
        assert_type(person_id, str)
    assert_type(await group.identify(b"", top=1), GroupsResult)
    async with group.identify_many(images, errors="collect") as found:
        assert_type((await anext(found)).unwrap(), GroupsResult)


async def sessions() -> None:
    async with FaceSession(
        "123456",
        "test",
        Credentials("AKID", "secret"),
        base_url="https://example.com",
        timeout=1,
        deadline=2.5,
        retry=RetryPolicy(max_attempts=1),
        limits=ServiceLimits(max_faces_per_person=5),
        throttle=Throttle(max_concurrency=4),
        verify=Path("authority.pem"),
        allow_insecure=True,
    ) as session:
        assert_type(session.with_options(deadline=1), FaceSession)
        assert_type(session.planned_request_bytes, int)
    async with FaceSession.from_env(timeout=3, verify=ssl.create_default_context()) as session:
        assert_type(session.stats.requests, int)
    async with local_session("faces.db", recognizer="fingerprint", deadline=3) as session:
        assert_type(session, FaceSession)


def watch(attempt: Attempt) -> None:
    assert_type(attempt.pause, float | None)
    assert_type(attempt.error, BaseException | None)


async def seen_and_on_other_libraries() -> None:
    telemetry = Telemetry(TracerProvider(), meter_provider=MeterProvider())
    async with FaceSession.from_env(on_attempt=watch, telemetry=telemetry, http="httpx2") as session:
        assert_type(session.appid, str)
    async with httpx2.AsyncHTTPTransport() as transport, FaceSession.from_env(transport=transport) as session:
        assert_type(session.appid, str)
    async with httpx.AsyncHTTPTransport() as other, FaceSession.from_env(transport=other, telemetry=Telemetry()) as it:
        assert_type(it.appid, str)


async def testing(face_server: FaceServer) -> None:
    face_server.faults.add("addface", code=213, partial=2, times=3)
    face_server.faults.add(status=429, headers={"Retry-After": "3"}, delay=0.5)
    face_server.restore(face_server.snapshot())
    assert_type(face_server.session(deadline=3), FaceSession)
    assert_type(face_server.calls("identify")[0].code, int | None)
    async with face_server.serve() as base_url:
        assert_type(face_server.environment(base_url), dict[str, str])
