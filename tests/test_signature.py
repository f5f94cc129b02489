"""The Authorization header, held against signatures that other means made."""

from __future__ import annotations

import base64
import hmac
import itertools
import pickle
import traceback

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from specification import (
    SAMPLES,
    SIGNATURE_VECTORS,
    SIGNED_APPID,
    SIGNED_BUCKET,
    SIGNED_SECRET_ID,
    SIGNED_SECRET_KEY,
)

from face_async import FaceSession
from face_async.signature import MAX_LIFETIME, Credentials, parse, sign, verify_signature

CREDENTIALS = Credentials(SIGNED_SECRET_ID, SIGNED_SECRET_KEY)
DOCUMENTED = next(vector for vector in SIGNATURE_VECTORS if vector.form.startswith("document"))
by_form = pytest.mark.parametrize("vector", SIGNATURE_VECTORS, ids=lambda vector: vector.form)


def signed(original: str, key: str = SIGNED_SECRET_KEY) -> str:
    """Sign any text, by the document's formula and not by our code."""
    raw = original.encode()
    return base64.b64encode(hmac.digest(key.encode(), raw, "sha1") + raw).decode()


def sign_as_documented(**changes: object) -> str:
    arguments = {"appid": "123456", "bucket": "test", "now": 1_500_000_000, "nonce": 123_456_789, "lifetime": 30}
    return sign(CREDENTIALS, **(arguments | changes))


# Signing


def test_we_sign_the_documented_form_to_the_byte():
    assert sign_as_documented() == DOCUMENTED.authorization


def test_a_signature_is_one_line_without_spaces():
    long = sign_as_documented(bucket="b" * 500)
    assert long.isascii()
    assert not any(char.isspace() for char in long)


def test_the_default_lifetime_is_five_minutes():
    authorization = sign(CREDENTIALS, appid="1", bucket="b", now=1_000, nonce=1)
    assert parse(authorization).expires == 1_300


@pytest.mark.parametrize("lifetime", [1, MAX_LIFETIME])
def test_a_lifetime_within_three_months_is_signed(lifetime):
    assert parse(sign_as_documented(lifetime=lifetime)).expires == 1_500_000_000 + lifetime


@pytest.mark.parametrize("lifetime", [-1, 0, MAX_LIFETIME + 1])
def test_a_lifetime_beyond_three_months_or_of_nothing_is_refused(lifetime):
    with pytest.raises(ValueError, match="lifetime"):
        sign_as_documented(lifetime=lifetime)


def test_three_months_are_ninety_days():
    assert MAX_LIFETIME == 7_776_000


@given(
    appid=st.from_regex(r"[0-9]{1,12}", fullmatch=True),
    bucket=st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True),
    now=st.integers(0, 4_000_000_000),
    nonce=st.integers(0, 9_999_999_999),
    lifetime=st.integers(1, MAX_LIFETIME),
)
def test_what_we_sign_reads_back_and_verifies(appid, bucket, now, nonce, lifetime):
    read = parse(sign(CREDENTIALS, appid=appid, bucket=bucket, now=now, nonce=nonce, lifetime=lifetime))
    assert (read.appid, read.bucket, read.secret_id) == (appid, bucket, SIGNED_SECRET_ID)
    assert (read.signed_at, read.expires, read.nonce) == (now, now + lifetime, str(nonce))
    assert verify_signature(read, CREDENTIALS)


# Reading what others sign


@by_form
def test_the_signature_of_every_official_client_verifies(vector):
    assert verify_signature(parse(vector.authorization), CREDENTIALS)


@by_form
def test_every_field_of_every_official_client_is_read(vector):
    fields = dict(pair.split("=", 1) for pair in vector.original.split("&"))
    read = parse(vector.authorization)
    assert (read.appid, read.secret_id) == (SIGNED_APPID, SIGNED_SECRET_ID)
    assert read.bucket == (SIGNED_BUCKET if "b" in fields else None)
    assert (read.signed_at, read.expires) == (int(fields["t"]), int(fields["e"]))
    assert read.nonce == fields.get("r", "")
    assert read.original == vector.original.encode()


def test_the_order_of_fields_is_free():
    pairs = ["a=123456", "b=test", f"k={SIGNED_SECRET_ID}", "e=1500000030", "t=1500000000"]
    for order in itertools.permutations(pairs):
        read = parse(signed("&".join(order)))
        assert (read.appid, read.bucket, read.signed_at, read.expires) == ("123456", "test", 1500000000, 1500000030)
        assert verify_signature(read, CREDENTIALS)


def test_unknown_fields_are_signed_and_otherwise_ignored():
    assert verify_signature(parse(signed(DOCUMENTED.original + "&z=9")), CREDENTIALS)


def test_a_value_may_hold_an_equals_sign():
    assert parse(signed("a=1&k=id==&e=2&t=1")).secret_id == "id=="


def test_an_empty_bucket_is_no_bucket():
    assert parse(signed("a=1&b=&k=id&e=2&t=1")).bucket is None


def test_a_one_time_signature_is_read():
    """e = 0 with a resource path: not for the face calls, which the server decides, not the reader."""
    assert parse(signed("a=1&b=t&k=id&e=0&t=1&r=1&u=0&f=/1/t/x.jpg")).expires == 0


def test_white_space_around_the_header_is_not_part_of_it():
    assert verify_signature(parse(f"  {DOCUMENTED.authorization} \r\n"), CREDENTIALS)


# Tampering


@by_form
def test_another_key_is_refused(vector):
    assert not verify_signature(parse(vector.authorization), Credentials(SIGNED_SECRET_ID, SIGNED_SECRET_KEY + "x"))


@by_form
def test_every_single_flipped_bit_is_refused(vector):
    raw = base64.b64decode(vector.authorization)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read = parse(base64.b64encode(flipped).decode())
        except ValueError:
            continue
        assert not verify_signature(read, CREDENTIALS)


@pytest.mark.parametrize(
    ("old", "new"),
    [("a=123456", "a=123457"), ("b=test", "b=prod"), ("e=1500000030", "e=1600000030"), ("r=123456789", "r=1")],
)
def test_a_changed_field_under_the_old_digest_is_refused(old, new):
    changed = base64.b64decode(DOCUMENTED.authorization).replace(old.encode(), new.encode())
    read = parse(base64.b64encode(changed).decode())
    assert not verify_signature(read, CREDENTIALS)


# Hostile input


@pytest.mark.parametrize(
    "original",
    [
        "",
        "a",
        "a=1",
        "b=t&k=id&e=2&t=1",
        "a=1&e=2&t=1",
        "a=1&k=id&t=1",
        "a=1&k=id&e=2",
        "a=&k=id&e=2&t=1",
        "a=1&k=&e=2&t=1",
        "a=1&a=1&k=id&e=2&t=1",
        "a=1&k=id&e=2&t=1&t=3",
        "a=1&k=id&e=2&t=1&",
        "a=1&&k=id&e=2&t=1",
        "a=1&k=id&e=-2&t=1",
        "a=1&k=id&e=+2&t=1",
        "a=1&k=id&e= 2&t=1",
        "a=1&k=id&e=2_0&t=1",
        "a=1&k=id&e=2.0&t=1",
        "a=1&k=id&e=2\n&t=1",
        "a=1&k=id&e=٢&t=1",
        "a=1&k=id&e=&t=1",
        f"a=1&k=id&e={'9' * 13}&t=1",
        f"a=1&k=id&e={'9' * 5_000}&t=1",
    ],
)
def test_a_truly_signed_text_that_lacks_or_repeats_or_misspells_a_field_is_no_signature(original):
    with pytest.raises(ValueError, match=r"^not a signature$"):
        parse(signed(original))


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        " ",
        "=",
        "A",
        "Bearer abc",
        "\x00",
        "签名",
        "\ud800",
        DOCUMENTED.authorization[:-1],
        "AA==",
        "\n".join("AAAA"),
    ],
)
def test_what_is_not_base64_is_no_signature(authorization):
    with pytest.raises(ValueError, match=r"^not a signature$"):
        parse(authorization)


def test_a_signed_text_that_is_not_utf8_is_no_signature():
    raw = b"a=1&k=\xff&e=2&t=1"
    with pytest.raises(ValueError, match=r"^not a signature$"):
        parse(base64.b64encode(bytes(20) + raw).decode())


def test_the_specifications_own_samples_carry_no_signature():
    for sample in SAMPLES:
        with pytest.raises(ValueError, match=r"^not a signature$"):
            parse(sample.headers["authorization"])


def test_a_refusal_repeats_nothing_and_chains_nothing_of_what_it_refuses():
    with pytest.raises(ValueError, match=r"^not a signature$") as refused:
        parse(signed("a=1&k=confidential&e=x&t=1"))
    assert refused.value.__suppress_context__
    assert refused.value.__cause__ is None


def only_value_errors(authorization: str) -> None:
    try:
        read = parse(authorization)
    except ValueError as refused:
        assert str(refused) == "not a signature"  # noqa: PT017 - most inputs raise, some need not
    else:
        assert read.appid
        assert read.secret_id
        assert isinstance(verify_signature(read, CREDENTIALS), bool)


@given(st.text())
@example("=" * 10_000)
def test_any_text_is_read_or_refused_with_a_value_error(text):
    only_value_errors(text)


@given(st.binary(max_size=200))
@example(bytes(20))
@example(bytes(19))
def test_any_bytes_in_base64_are_read_or_refused_with_a_value_error(raw):
    only_value_errors(base64.b64encode(raw).decode())


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "k", "e", "t", "r", "u", "f", ""]), st.text() | st.from_regex("[0-9]+")),
        max_size=9,
    )
)
def test_any_fields_are_read_or_refused_with_a_value_error(pairs):
    original = "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass")
    only_value_errors(base64.b64encode(bytes(20) + original).decode())


# Credentials

KEY = "S3cret/Key+that=nobody~sees"


@pytest.mark.parametrize("which", ["secret_id", "secret_key"])
@pytest.mark.parametrize(
    "wrong", ["", " ", "a b", "a&b", "abc\n", "\nabc", "a\r\nb", "a\tb", "a\x00b", "a\x7fb", "clé", "密钥", "\ud800"]
)
def test_credentials_hold_printable_ascii_only(which, wrong):
    values = {"secret_id": "id", "secret_key": "key", which: wrong}
    with pytest.raises(ValueError, match=rf"^{which} must be printable ASCII") as refused:
        Credentials(**values)
    assert not wrong.strip() or wrong not in str(refused.value)


@pytest.mark.parametrize("which", ["secret_id", "secret_key"])
@pytest.mark.parametrize("wrong", [None, b"bytes", 7, ["s"]])
def test_credentials_are_strings(which, wrong):
    values = {"secret_id": "id", "secret_key": "key", which: wrong}
    with pytest.raises(TypeError, match=rf"^{which} must be a str, not {type(wrong).__name__}$"):
        Credentials(**values)


def test_credentials_never_change():
    credentials = Credentials("id", KEY)
    with pytest.raises(AttributeError):
        credentials.secret_key = "other"


def test_credentials_compare_by_value_and_travel_between_processes():
    credentials = Credentials("id", KEY)
    assert pickle.loads(pickle.dumps(credentials)) == credentials
    assert Credentials("id", "other") != credentials


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, "%s".__mod__, ascii, lambda c: repr([c])])
def test_no_way_to_print_credentials_shows_the_key(show):
    shown = show(Credentials("id", KEY))
    assert "id" in shown
    assert KEY not in shown


@pytest.mark.parametrize("broken", [KEY + "\n", KEY + " ", "\x00" + KEY, KEY + "é"])
def test_neither_the_message_nor_the_traceback_of_a_refused_key_shows_it(broken):
    with pytest.raises(ValueError, match="secret_key") as refused:
        Credentials("id", broken)
    told = "".join(traceback.format_exception(refused.value))
    assert KEY not in told
    assert KEY not in repr(refused.value)


REFUSED = {
    "a key with a line break": lambda: Credentials("id", f"{KEY}\n"),
    "a key by its name": lambda: Credentials(secret_id="id", secret_key=f" {KEY}"),
    "a key as bytes": lambda: Credentials("id", KEY.encode()),
    "an id beside a good key": lambda: Credentials("", KEY),
    "a session's key in the environment": FaceSession.from_env,
}


@pytest.mark.parametrize("refused", REFUSED)
def test_no_frame_of_ours_holds_a_key_that_is_refused(monkeypatch, refused):
    """Tools that print the local variables of a traceback's frames show nothing that the caller did not hold."""
    for name, value in {"APPID": "1", "BUCKET": "b", "SECRET_ID": "id", "SECRET_KEY": f"{KEY}\n"}.items():
        monkeypatch.setenv(f"FACE_ASYNC_{name}", value)
    with pytest.raises((TypeError, ValueError)) as caught:
        REFUSED[refused]()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_globals["__name__"] not in {__name__, "_pytest.python_api"}]
    assert ours
    held = [value for frame in ours for local in frame.f_locals.values() for value in (local, *held_by(local))]
    assert [value for value in held if KEY in repr(value)] == []
    names = [frame.f_globals["__name__"] for frame in ours]
    assert {name.partition(".")[0] for name in names} == {"face_async"}


def held_by(value: object) -> list[object]:
    """Return what an object's attributes are, as far as they are set."""
    names = getattr(type(value), "__slots__", ())
    return [getattr(value, name) for name in names if name != "__weakref__" and hasattr(value, name)]


def test_no_failure_of_signing_shows_the_key():
    with pytest.raises(ValueError, match="lifetime") as refused:
        sign(Credentials("id", KEY), appid="1", bucket="b", now=1, nonce=1, lifetime=0)
    assert KEY not in "".join(traceback.format_exception(refused.value))


def test_a_read_signature_shows_neither_digest_nor_signed_text():
    shown = repr(parse(DOCUMENTED.authorization))
    assert "digest" not in shown
    assert "original" not in shown


def test_the_key_is_not_in_the_header():
    raw = base64.b64decode(sign(Credentials("id", KEY), appid="1", bucket="b", now=1, nonce=1))
    assert KEY.encode() not in raw
