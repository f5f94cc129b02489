"""Who is let in: every code of a signature, 4 to 16, and what official clients sign."""

from __future__ import annotations

import anyio
import httpx
import pytest
from serverkit import APPID, BUCKET, CREDENTIALS, authorization, calling, signed
from specification import SIGNATURE_VECTORS

from face_async.server import Account, create_app
from face_async.server.guard import ANY_BUCKET, MAX_CLOCK_LEAD, MAX_ONE_TIME_LIFETIME
from face_async.server.storage import signatures
from face_async.signature import MAX_LIFETIME, Credentials

pytestmark = pytest.mark.anyio

NOW = 1_500_000_000
OTHER = Credentials("AKIDother", "otherKey")
ACCOUNTS = [Account(APPID, (BUCKET, "second"), CREDENTIALS), Account("777", ("test",), OTHER)]


async def code_of(caller, value: str, **fields: object) -> int:
    caller.sign = lambda: value
    return (await caller.json("getgroupids", **fields))[0]


def dated(fields: str) -> str:
    return signed(f"a={APPID}&b={BUCKET}&k={CREDENTIALS.secret_id}&{fields}")


@pytest.mark.parametrize("vector", SIGNATURE_VECTORS, ids=lambda vector: vector.form)
async def test_every_official_clients_signature_is_accepted(store, vector):
    """Whatever fields a client signs, in whatever order."""
    async with calling(store, clock=lambda: NOW) as caller:
        assert await code_of(caller, vector.authorization) == 0


async def test_no_signature_is_4(caller):
    """No header, and an empty or blank one."""
    response = await caller.client.post("/face/getgroupids", json={})
    assert response.json()["code"] == 4
    assert await code_of(caller, "") == 4
    assert await code_of(caller, "  ") == 4


@pytest.mark.parametrize("value", ["x", "FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==", "q-sign-algorithm=sha1"])
async def test_an_unreadable_signature_is_5(caller, value):
    """Also the samples' own, which the specification's authors cut short."""
    assert await code_of(caller, value) == 5


async def test_a_signature_by_another_key_is_14(caller):
    """And so is one whose text was altered after signing."""
    wrong = Credentials(CREDENTIALS.secret_id, "wrongKey")
    assert await code_of(caller, authorization(credentials=wrong)) == 14


async def test_another_secret_id_is_11(caller):
    """With one key for all, every other SecretID does not exist."""
    assert await code_of(caller, authorization(credentials=OTHER)) == 11


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (f"e={NOW}&t={NOW - 30}", 0),
        (f"e={NOW - 1}&t={NOW - 30}", 9),
        (f"e={NOW}&t={NOW}", 9),
        (f"e=0&t={NOW}", 9),
        (f"e={NOW + MAX_LIFETIME}&t={NOW}", 0),
        (f"e={NOW + MAX_LIFETIME + 1}&t={NOW}", 9),
        (f"e={NOW + 100}&t={NOW + 1}", 0),
        (f"e={NOW + 9999}&t={NOW + MAX_CLOCK_LEAD}", 0),
        (f"e={NOW + 9999}&t={NOW + MAX_CLOCK_LEAD + 1}", 9),
    ],
)
async def test_a_signature_out_of_its_time_is_9(store, fields, code):
    """Expired, of no length, one-time, over 3 months, or dated too far ahead."""
    async with calling(store, clock=lambda: NOW) as caller:
        assert await code_of(caller, dated(fields)) == code


async def test_a_signature_for_another_target_is_6(caller):
    """The appid must agree; the bucket too, where both name one."""
    assert await code_of(caller, authorization(appid="654321")) == 6
    assert await code_of(caller, authorization(bucket="other")) == 6
    assert await code_of(caller, authorization(bucket="")) == 0
    assert await code_of(caller, authorization(bucket="anything"), bucket=None) == 0


async def test_accounts_say_who_exists(store):
    """10 unknown appid, 11 unknown SecretID, 12 a SecretID of another appid, 16 unknown bucket."""
    async with calling(store, credentials=ACCOUNTS) as caller:
        assert await code_of(caller, authorization()) == 0
        assert await code_of(caller, authorization(bucket="second"), bucket="second") == 0
        assert await code_of(caller, authorization("777", "test", OTHER), appid="777") == 0
        assert await code_of(caller, authorization("999", credentials=OTHER), appid="999") == 10
        assert await code_of(caller, authorization(credentials=Credentials("AKIDnobody", "k"))) == 11
        assert await code_of(caller, authorization(credentials=OTHER)) == 12
        assert await code_of(caller, authorization(bucket="third"), bucket="third") == 16
        assert await code_of(caller, authorization(bucket="third"), bucket=None) == 16


async def test_a_key_is_good_for_the_buckets_of_its_own_accounts_alone(store):
    """Also where several accounts share an appid: for a bucket of another key 16, and none named is the own one."""
    accounts = [
        Account(APPID, ("b1", "b2"), CREDENTIALS),
        Account(APPID, ("b3",), OTHER),
        Account(APPID, ("b4",), CREDENTIALS),
    ]
    own = {CREDENTIALS: {"b1", "b2", "b4"}, OTHER: {"b3"}}
    async with calling(store, credentials=accounts) as caller:
        for credentials, buckets in own.items():
            for bucket in ("b1", "b2", "b3", "b4"):
                value = authorization(bucket=bucket, credentials=credentials)
                for sent in (bucket, None):
                    assert await code_of(caller, value, bucket=sent) == (0 if bucket in buckets else 16)
        assert await code_of(caller, authorization(bucket="", credentials=OTHER), bucket=None) == 0
        assert await code_of(caller, authorization(bucket="", credentials=OTHER), bucket="b1") == 16
        assert await code_of(caller, authorization(bucket=""), bucket=None) == 16  # which of three?


async def test_a_bucket_of_another_key_is_no_bucket_of_that_name(store):
    """The word that stands for none does so for whoever has no such bucket."""
    accounts = [Account(APPID, (ANY_BUCKET,), CREDENTIALS), Account(APPID, ("b2",), OTHER)]
    async with calling(store, credentials=accounts) as caller:
        assert await code_of(caller, authorization(bucket=ANY_BUCKET, credentials=OTHER), bucket=None) == 0
        assert await code_of(caller, authorization(bucket=ANY_BUCKET), bucket=None) == 0


def test_two_keys_of_one_secret_id_are_a_contradiction(store, anyio_backend):
    twice = [Account(APPID, ("b1",), CREDENTIALS), Account(APPID, ("b2",), Credentials(CREDENTIALS.secret_id, "other"))]
    with pytest.raises(ValueError, match=f"appid {APPID} has two keys for the SecretID {CREDENTIALS.secret_id}"):
        create_app(store, credentials=twice)


def test_the_buckets_of_an_account_are_several_names(anyio_backend):
    """A single str would be one bucket a letter."""
    assert Account(APPID, ["a", "b"], CREDENTIALS).buckets == ("a", "b")
    with pytest.raises(TypeError, match="buckets must be several names"):
        Account(APPID, "test", CREDENTIALS)


async def test_a_replayed_signature_is_13_when_asked_for(store):
    """Without replay protection the same signature is good until it expires."""
    value = authorization()
    async with calling(store) as caller:
        assert [await code_of(caller, value) for _ in range(2)] == [0, 0]
    async with calling(store, replay_protection=True) as caller:
        assert [await code_of(caller, value) for _ in range(2)] == [0, 13]
        assert await code_of(caller, authorization()) == 0


async def test_a_forged_signature_does_not_burn_the_true_one(store):
    """Only a signature that proved true is remembered."""
    async with calling(store, replay_protection=True, clock=lambda: NOW) as caller:
        early = dated(f"e={NOW + 2000}&t={NOW + 1000}")
        assert [await code_of(caller, early) for _ in range(2)] == [9, 9]


async def test_a_signature_is_good_once_in_all_processes_and_after_a_restart(open_one):
    """What was used is kept beside the faces."""
    value = authorization()
    with open_one() as first, open_one() as second:
        async with calling(first, replay_protection=True) as here, calling(second, replay_protection=True) as there:
            assert [await code_of(here, value), await code_of(there, value)] == [0, 13]
            codes = []
            async with anyio.create_task_group() as tasks:
                for caller in (here, there) * 5:
                    tasks.start_soon(collect, codes, caller, same := authorization())
                    tasks.start_soon(collect, codes, there, same)
            assert sorted(codes) == [0] * 10 + [13] * 10
    with open_one() as store:
        async with calling(store, replay_protection=True) as caller:
            assert await code_of(caller, value) == 13


async def collect(codes, caller, value):
    codes.append(await code_of(caller, value))


async def test_no_account_uses_up_the_memory_of_another(store, monkeypatch):
    """Who has used too many is refused, and nothing that is good is forgotten."""
    monkeypatch.setattr(signatures, "CAPACITY", 3)
    async with calling(store, credentials=ACCOUNTS, replay_protection=True) as caller:
        values = [authorization() for _ in range(4)]
        assert [await code_of(caller, value) for value in values] == [0, 0, 0, 13]
        assert await code_of(caller, authorization("777", "test", OTHER), appid="777") == 0
        assert [await code_of(caller, value) for value in values] == [13] * 4


async def test_one_key_for_every_appid_is_one_account(store, monkeypatch):
    """However many appids it makes up."""
    monkeypatch.setattr(signatures, "CAPACITY", 3)
    async with calling(store, replay_protection=True) as caller:
        codes = [await code_of(caller, authorization(str(appid)), appid=str(appid)) for appid in range(1, 6)]
    assert codes == [0, 0, 0, 13, 13]


async def test_a_signature_that_is_good_once_is_not_good_for_long(store):
    """So that the memory of used ones has room again soon."""
    async with calling(store, replay_protection=True) as caller:
        assert await code_of(caller, authorization(lifetime=MAX_ONE_TIME_LIFETIME)) == 0
        assert await code_of(caller, authorization(lifetime=MAX_ONE_TIME_LIFETIME + 1)) == 9
    async with calling(store) as caller:
        assert await code_of(caller, authorization(lifetime=MAX_ONE_TIME_LIFETIME + 1)) == 0


async def test_the_signature_is_checked_before_the_body_is_read(caller):
    """A stranger cannot make the server read."""

    async def poisoned():
        raise AssertionError("the body was read")
        yield b""

    headers = {"Authorization": authorization(credentials=OTHER), "Content-Type": "application/json"}
    response = await caller.client.post("/face/identify", content=poisoned(), headers=headers)
    assert response.json()["code"] == 11


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (f"e={NOW + 2592000}.25&t={NOW}.123456789", 0),
        (f"e={NOW + 2592000}&t={NOW - 5}&u=0&f=", 0),
        (f"e={NOW + 60}&t={NOW}&r=1&u=0&f=tencentyunSignTest", 0),
        (f"e={NOW + 60}.&t={NOW}", 5),
        (f"e={NOW + 60}.5.5&t={NOW}", 5),
        (f"e={NOW + 60}&t=1.5e9", 5),
        (f"e={NOW}.9&t={NOW}.1", 9),
    ],
)
async def test_signatures_as_programs_write_them(store, value, code):
    """Decimals in times (Python's clock as it is), 30 days, no nonce, a path in a signature that is not for one."""
    async with calling(store, clock=lambda: NOW) as caller:
        assert await code_of(caller, dated(value)) == code


@pytest.mark.parametrize("word", ["Bearer ", "bearer ", "Bearer   "])
async def test_the_word_bearer_may_stand_before_a_signature(caller, word):
    """One program was seen to send it."""
    assert await code_of(caller, word + authorization()) == 0
    assert await code_of(caller, word) == 5
    assert await code_of(caller, word + word + authorization()) == 5


async def test_a_strict_server_wants_signatures_as_official_clients_write_them(store):
    """5 for the word Bearer and for decimals, 6 and 16 for buckets that are none."""
    async with calling(store, strict=True, clock=lambda: NOW) as caller:
        assert await code_of(caller, dated(f"e={NOW + 60}&t={NOW}")) == 0
        assert await code_of(caller, "Bearer " + dated(f"e={NOW + 60}&t={NOW}")) == 5
        assert await code_of(caller, dated(f"e={NOW + 60}&t={NOW}.5")) == 5
    async with calling(store, strict=True, credentials=ACCOUNTS) as caller:
        assert await code_of(caller, authorization(bucket=ANY_BUCKET)) == 6
        assert await code_of(caller, authorization(bucket=ANY_BUCKET), bucket=ANY_BUCKET) == 16
        assert await code_of(caller, authorization("777", "\ntest", OTHER), appid="777", bucket=None) == 16


NONE_NAMED = [
    (signed_bucket, sent_bucket)
    for signed_bucket in ("", ANY_BUCKET, " ", "\n")
    for sent_bucket in (None, "", ANY_BUCKET)
]


@pytest.mark.parametrize(("signed_bucket", "sent_bucket"), NONE_NAMED)
async def test_no_bucket_is_the_only_bucket(store, signed_bucket, sent_bucket):
    """Absent, empty, or the word of the vendor's sample code; 16 where there are several to choose from."""
    async with calling(store, credentials=ACCOUNTS) as caller:
        value = authorization("777", signed_bucket, OTHER)
        assert await code_of(caller, value, appid="777", bucket=sent_bucket) == 0
        assert await code_of(caller, authorization(bucket=signed_bucket), bucket=sent_bucket) == 16
        assert await code_of(caller, authorization(bucket=signed_bucket), bucket="second") == 0
        assert await code_of(caller, authorization(bucket="second"), bucket=sent_bucket) == 0
        assert await code_of(caller, authorization(bucket="third"), bucket=sent_bucket) == 16
    async with calling(store) as caller:
        assert await code_of(caller, authorization(bucket=signed_bucket), bucket=sent_bucket) == 0


async def test_a_bucket_may_have_the_name_that_stands_for_none(store):
    """Then it is a bucket like any other."""
    accounts = [Account(APPID, (ANY_BUCKET, "second"), CREDENTIALS)]
    async with calling(store, credentials=accounts) as caller:
        assert await code_of(caller, authorization(bucket=ANY_BUCKET), bucket=None) == 0
        assert await code_of(caller, authorization(bucket=ANY_BUCKET), bucket="second") == 6


async def test_white_space_around_a_signed_bucket_does_not_count(caller):
    """A Java program was seen to sign the line end of its configuration file."""
    assert await code_of(caller, authorization(bucket=f"\n{BUCKET}\n")) == 0


METHODS = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
async def test_all_calls_are_post(caller, method):
    """Spec: 2, item 5. Another method gets an envelope, code 3, which every client of the API can read."""
    answer = await caller.client.request(method, "/face/identify")
    assert answer.status_code == 200
    assert method == "HEAD" or answer.json() == {"code": 3, "message": "BAD_REQUEST", "data": {}}


@pytest.mark.parametrize("path", ["/face/nosuch", "/face/livedetectpicture", "/face/", "/face", "/face/identify/more"])
async def test_a_path_without_an_endpoint_gets_an_envelope(caller, path):
    """Clients turn anything else into "not JSON", hand the text on as an answer, or crash on it."""
    answer = await caller.client.post(path)
    assert (answer.status_code, answer.json()["code"]) == (200, 3)


@pytest.mark.parametrize("path", ["/", "/index.html", "/ocr/idcard", "/faces/identify"])
async def test_a_path_of_something_else_is_not_found(caller, path):
    """An envelope there would say that this is the API."""
    answer = await caller.client.post(path)
    assert (answer.status_code, answer.text) == (httpx.codes.NOT_FOUND, "Not Found")


@pytest.mark.parametrize(
    "path", ["//face/getgroupids", "/face//getgroupids", "/face/getgroupids/", "//face///getgroupids//"]
)
async def test_a_slash_too_many_does_not_count(caller, path):
    """Addresses are put together from parts."""
    body = {"appid": APPID, "bucket": BUCKET}
    answer = await caller.client.post(f"http://server{path}", json=body, headers={"Authorization": authorization()})
    assert answer.json()["code"] == 0
