"""The documentation's pages: short, reachable, and with commands and configurations that are taken as they stand."""

from __future__ import annotations

import inspect
import re
import ssl
from pathlib import Path

import httpx
import pytest
import typer
from nginxkit import nginx_for_tests  # noqa: F401 - the fixture goes by another name
from raw_server import CERTIFICATE
from timing import PATIENCE

import face_async
from face_async.cli._app import app
from face_async.endpoints import FaceApi
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
            for command in re.findall(r"face-async ([a-z][a-z-]*(?: [^|&#;]*)?)", line):
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
    _, navigation = (PROJECT / ".ci" / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")
    assert sorted([*PAGES, "index.md"]) == sorted(re.findall(r"[\w.-]+\.md", navigation))


def shown_signature(text: str) -> tuple[str, inspect.Signature]:
    """The name and the signature of a function as a page writes it."""
    names: dict = {}
    exec(f"def {text}: ...", names)
    (name,) = names.keys() - {"__builtins__"}
    return name, inspect.signature(names[name])


def parameters_of(function: object) -> dict[str, tuple]:
    """The kind and the default of each parameter, by its name."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: (each.kind, each.default) for each in parameters if each.name != "self"}


def test_the_table_of_verbs_has_their_signatures():
    """All of a verb's parameters; of a bulk verb those that not all of them have."""
    shown = dict(map(shown_signature, re.findall(r"^\| `(\w+\(.*?\))` \|", PAGES["verbs.md"], re.MULTILINE)))
    everywhere = {"max_at_once", "fit", "on_outage", "options"}
    for name, signature in shown.items():
        told = {each.name: (each.kind, each.default) for each in signature.parameters.values()}
        real = parameters_of(getattr(face_async.FaceSession, name))
        assert told == {key: value for key, value in real.items() if key not in everywhere}, name
    verbs = {name for name in vars(FaceApi) if not name.startswith("_")}
    assert verbs <= shown.keys()


@pytest.mark.filterwarnings("ignore")  # what the vendor's client imports is its own affair
def test_the_table_of_migration_has_every_call_of_the_vendors_client():
    """But those of other products."""
    from qcloud_image import Client  # noqa: PLC0415 - it warns

    shown = dict(map(shown_signature, re.findall(r"^\| `(face_\w+\(.*?\))` \|", PAGES["migration.md"], re.MULTILINE)))
    other_products = re.compile(r"face_(idcard|live)")
    real = {name for name in vars(Client) if name.startswith("face_") and not other_products.match(name)}
    assert shown.keys() == real
    for name, signature in shown.items():
        assert list(signature.parameters) == list(parameters_of(getattr(Client, name))), name


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
            nginx = start_nginx(base_url, http=block)
            async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as anybody:
                await anybody.get(nginx.url)  # which it answers once all its sockets are there
            transport = httpx.AsyncHTTPTransport(uds=str(address), verify=ssl.create_default_context(cafile=pem))
            trusted = {"base_url": "https://127.0.0.1", "transport": transport}
            picture = draw_portrait(0)
            async with transport, server.session(**trusted) as session:
                await session.new_person("ada", ["staff"], picture + bytes(1_500_000 - len(picture)))
                assert (await session.identify("staff", draw_portrait(0, shot=1))).best.person_id == "ada"
                assert session.stats.retries == 0
            async with httpx.AsyncClient(**trusted, timeout=PATIENCE) as anybody:
                assert [(await anybody.get(path)).status_code for path in ("/health/live", "/metrics")] == [200, 403]
