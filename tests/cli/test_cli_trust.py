"""Whom commands trust: every command that may call a service can be told so, and none is insecure quietly."""

from __future__ import annotations

import pytest
from doubles import envelope
from raw_server import CERTIFICATE, RawServer, answer

from face_async.cli._app import app

GROUPS = envelope({"group_ids": ["staff"]})


@pytest.fixture
def authority(tmp_path):
    path = tmp_path / "authority.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    return path


@pytest.mark.usefixtures("service")
def test_a_private_authority_is_named_by_an_option_or_a_variable(say, authority, monkeypatch):
    with RawServer([answer(GROUPS)] * 2, tls=authority) as server:
        refused = say("groups", "--base-url", server.url)
        assert (refused.code, "--ca-file" in refused.err) == (3, True)
        assert "staff\n" == say("groups", "--base-url", server.url, "--ca-file", authority).out
        monkeypatch.setenv("FACE_ASYNC_CA_FILE", str(authority))
        assert "staff\n" == say("groups", "--base-url", server.url).out


@pytest.mark.usefixtures("service")
def test_an_authority_that_is_not_there_is_one_line(say):
    said = say("groups", "--base-url", "https://127.0.0.1:1", "--ca-file", "nowhere.pem")
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines() == [
        "face-async: verify: the certificates in 'nowhere.pem' cannot be read: No such file or directory"
    ]


def test_http_to_another_machine_must_be_allowed_and_is_told(say, service, caplog):
    elsewhere = service["FACE_ASYNC_BASE_URL"].replace("127.0.0.1", "0.0.0.0")
    refused = say("groups", "--base-url", elsewhere)
    assert (refused.code, "--insecure" in refused.err) == (2, True)
    assert "staff\nguests\n" == say("groups", "--base-url", elsewhere, "--insecure").out
    assert f"unencrypted to {elsewhere}" in caplog.text
    assert (2, "") == (say("groups", "--base-url", elsewhere).code, refused.out)  # it holds for one command


def test_every_command_that_takes_a_base_url_can_be_told_whom_to_trust(say):
    for command in app.registered_commands:
        shown = say(command.name, "--help").out
        options = {option: option in shown for option in ("--base-url", "--ca-file", "--insecure")}
        assert len(set(options.values())) == 1, (command.name, options)
