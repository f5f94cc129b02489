"""Whom a session trusts with pictures and signatures: certificates, and connections without any."""

from __future__ import annotations

import os
import ssl

import pytest
from doubles import CREDENTIALS, envelope, session_on
from raw_server import CERTIFICATE, RawServer, answer
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names

from face_async import FaceSession, TransportError

pytestmark = pytest.mark.anyio

GROUPS = envelope({"group_ids": ["staff"]})


@pytest.fixture
def authority(tmp_path):
    """The file of a private authority, which vouches for the server of these tests, and of its key."""
    path = tmp_path / "authority.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    return path


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """An account in the environment, and nothing else."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", *(name for name in os.environ if name.startswith("FACE_ASYNC_"))):
        monkeypatch.delenv(name, raising=False)
    for name in ("APPID", "BUCKET", "SECRET_ID", "SECRET_KEY"):
        monkeypatch.setenv(f"FACE_ASYNC_{name}", "x")


async def test_a_private_authority_is_trusted_when_it_is_named(session_at, authority):
    """As a file by its path or name, or in a context of one's own."""
    context = ssl.create_default_context(cafile=authority)
    with RawServer([answer(GROUPS)] * 3, tls=authority) as server:
        for verify in (authority, str(authority), context):
            async with session_at(server, verify=verify) as session:
                assert await session.get_group_ids() == ["staff"]


async def test_a_private_authority_is_trusted_when_the_environment_names_it(session_at, authority, monkeypatch):
    """By the variable that everything over OpenSSL reads."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with RawServer([answer(GROUPS)], tls=authority) as server:
        async with session_at(server) as session:
            assert await session.get_group_ids() == ["staff"]


async def test_a_folder_of_certificates_is_trusted_when_the_environment_names_it(session_at, authority, monkeypatch):
    """OpenSSL finds a certificate there by the hash of its subject."""
    (authority.parent / "ce275665.0").write_bytes(authority.read_bytes())
    monkeypatch.setenv("SSL_CERT_DIR", str(authority.parent))
    with RawServer([answer(GROUPS)], tls=authority) as server:
        async with session_at(server) as session:
            assert await session.get_group_ids() == ["staff"]


async def test_the_variable_of_this_package_is_read_by_from_env(stack, authority, monkeypatch):
    """It goes before OpenSSL's, and after the argument."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    monkeypatch.setenv("FACE_ASYNC_CA_FILE", str(authority))
    with RawServer([answer(GROUPS)], tls=authority) as server:
        async with FaceSession.from_env(base_url=server.url, http=stack.http) as session:
            assert await session.get_group_ids() == ["staff"]
        with pytest.raises(ValueError, match=r"/elsewhere\.pem"):
            FaceSession.from_env(base_url=server.url, http=stack.http, verify="/elsewhere.pem")


async def test_an_authority_that_nobody_has_named_is_not_trusted_and_the_error_says_what_to_do(session_at, authority):
    """Not a byte of the request is sent."""
    with RawServer([], tls=authority) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError, match=r"(?i)certificate.*verify=.*SSL_CERT_FILE.*--ca-file"):
                await session.get_group_ids()


async def test_an_authority_is_trusted_only_where_it_is_named(session_at, authority):
    """A session does not trust another one's."""
    with RawServer([answer(GROUPS)], tls=authority) as server:
        async with session_at(server, verify=authority) as session:
            await session.get_group_ids()
        async with session_at(server) as session:
            with pytest.raises(TransportError, match=r"(?i)certificate"):
                await session.get_group_ids()


@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE"])
@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("", "no certificates in PEM")])
def test_certificates_that_cannot_be_read_are_told_when_the_session_is_made(
    tmp_path, monkeypatch, variable, content, reason
):
    """With the name of the file, and of the variable that names it."""
    path = tmp_path / f"{variable}-{reason}.pem"
    if content is not None:
        path.write_text(content, encoding="ascii")
    if variable:
        monkeypatch.setenv(variable, str(path))
    with pytest.raises(ValueError, match=f"{variable or 'verify'}: .*{path}.*{reason}"):
        FaceSession("1", "b", CREDENTIALS, **({} if variable else {"verify": path}))


@pytest.mark.parametrize("verify", [False, True, 1, object()])
def test_certificates_are_always_checked(verify):
    """There is no way to switch it off; the error says what verify takes."""
    with pytest.raises(TypeError, match="file of certificates"):
        FaceSession("1", "b", CREDENTIALS, verify=verify)


def test_a_transport_that_is_given_decides_itself_whom_to_trust(authority, monkeypatch):
    """An argument beside it is refused, and the environment is not read for it."""
    with pytest.raises(ValueError, match="verify is not for a transport"):
        session_on(GROUPS, verify=authority)
    monkeypatch.setenv("FACE_ASYNC_CA_FILE", "/nowhere.pem")
    _, network = session_on(GROUPS)
    FaceSession.from_env(transport=network)


# Without certificates


@pytest.mark.parametrize("value", ["1", "true", "Yes"])
def test_http_to_other_machines_is_allowed_by_the_environment_and_never_quietly(monkeypatch, caplog, value):
    """Every session says so."""
    monkeypatch.setenv("FACE_ASYNC_BASE_URL", "http://faces.lan")
    monkeypatch.setenv("FACE_ASYNC_ALLOW_INSECURE", value)
    FaceSession.from_env()
    assert [("face_async", "WARNING")] == [(record.name, record.levelname) for record in caplog.records]
    assert "unencrypted to http://faces.lan" in caplog.text


@pytest.mark.parametrize("value", ["", "0", "false", "no"])
def test_http_to_other_machines_is_refused_otherwise(monkeypatch, value):
    """The error says how to allow it."""
    monkeypatch.setenv("FACE_ASYNC_BASE_URL", "http://faces.lan")
    monkeypatch.setenv("FACE_ASYNC_ALLOW_INSECURE", value)
    with pytest.raises(ValueError, match="FACE_ASYNC_ALLOW_INSECURE=1 or --insecure"):
        FaceSession.from_env()
    FaceSession.from_env(allow_insecure=True)


def test_a_permission_that_says_neither_yes_nor_no_is_refused(monkeypatch):
    monkeypatch.setenv("FACE_ASYNC_ALLOW_INSECURE", "perhaps")
    with pytest.raises(ValueError, match="FACE_ASYNC_ALLOW_INSECURE must be"):
        FaceSession.from_env()


def test_http_within_this_machine_needs_no_permission(caplog):
    """And no warning."""
    for host in ("localhost", "127.0.0.1:8600", "[::1]"):
        FaceSession("1", "b", CREDENTIALS, base_url=f"http://{host}", allow_insecure=True)
    assert caplog.records == []
