"""The documentation's pages: short, reachable, and with commands and configurations that are taken as they stand."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx
import pytest
import typer
import yaml
from nginx import nginx_for_tests  # noqa: F401 - the fixture goes by another name
from raw_server import CERTIFICATE
from timing import PATIENCE

import face_async
from face_async.cli._app import app
from face_async.portraits import draw_portrait
from face_async.testing import FaceServer

PROJECT = Path(__file__).parents[1]
DOCS = Path(face_async.__file__).parent / "docs"  # which the wheel leaves out
PAGES = {page.name: page.read_text("utf-8") for page in sorted(DOCS.glob("*.md"))}
README = (PROJECT / "README.md").read_text("utf-8")
COMMANDS = typer.main.get_command(app).commands
CODE = re.compile(r"^```\w+\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not PAGES, reason="the wheel leaves the documentation out")


def commands_of(text: str) -> set[tuple[str, ...]]:
    """The commands of face-async in a text's code: the command's name and its options."""
    found = set()
    for block, inline in CODE.findall(text):
        for line in (block or inline).replace("\\\n", " ").splitlines():
            for command in re.findall(r"face-async ([a-z-]+(?: [^|&#;]*)?)", line):
                name, *arguments = command.split()
                found.add((name, *(part.partition("=")[0] for part in arguments if re.match("--?[a-z]", part))))
    return found


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_the_command_line_takes_every_command_that_a_page_shows(name):
    for command, *options in commands_of(README if name == "README.md" else PAGES[name]):
        assert command in COMMANDS, command
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(options) <= known | {"--help"}, command


def test_a_command_that_is_not_there_would_be_noticed():
    """Guard of the guard."""
    block = "A=1 face-async inroll p/ -g staff \\\n  --no-such=1\nface-async draw . # --x"
    text = f"`face-async serve --db x`\n\n```sh\n{block}\n```"
    assert {("serve", "--db"), ("inroll", "-g", "--no-such"), ("draw",)} == commands_of(text)


@pytest.mark.skipif(not (PROJECT / ".ci").exists(), reason="the site is made in a checkout")
def test_every_page_is_in_the_navigation_of_the_site_once():
    listed = re.findall(r"[\w-]+\.md", str(yaml.safe_load((PROJECT / ".ci" / "mkdocs.yml").read_text())["nav"]))
    assert sorted([*(name for name in PAGES if not name.startswith("README")), "index.md"]) == sorted(listed)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_in_one_sitting(name):
    assert len(PAGES[name].splitlines()) < 200


@pytest.mark.anyio
@pytest.mark.external("nginx")
async def test_the_configuration_of_nginx_lets_pass_what_a_session_sends(start_nginx, tmp_path, monkeypatch):
    """As it stands but for the addresses and the certificate: over https, with requests of the greatest size."""
    pem, address = tmp_path / "certificate.pem", tmp_path / "nginx.sock"
    pem.write_text(CERTIFICATE)
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", PAGES["deployment.md"], re.MULTILINE | re.DOTALL)
    with FaceServer() as server:
        async with server.serve() as base_url:
            changes = {"127.0.0.1:8600": httpx.URL(base_url).netloc.decode(), "listen 443": f"listen unix:{address}"}
            changes |= {
                f"/etc/ssl/{name}": str(pem) for name in ("faces.example.com.pem", "private/faces.example.com.key")
            }
            for old, new in changes.items():
                assert old in block
                block = block.replace(old, new)
            start_nginx(base_url, http=block)
            transport = httpx.AsyncHTTPTransport(uds=str(address), verify=ssl.create_default_context(cafile=pem))
            trusted = {"base_url": "https://127.0.0.1", "transport": transport}
            picture = draw_portrait(0)
            async with transport, server.session(**trusted) as session:
                await session.new_person("ada", ["staff"], picture + bytes(1_500_000 - len(picture)))
                assert (await session.identify("staff", draw_portrait(0, shot=1))).best.person_id == "ada"
                assert session.stats.retries == 0
            async with httpx.AsyncClient(**trusted, timeout=PATIENCE) as anybody:
                assert [(await anybody.get(path)).status_code for path in ("/health/live", "/metrics")] == [200, 403]
