"""``serve``: run the local server."""

from __future__ import annotations

import enum
import shlex
from functools import partial
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve

from face_async.cli.databases import DATABASE_HELP, check_argument
from face_async.cli.options import (
    ACCOUNTS_VARIABLE,
    ALLOW_ORIGIN_VARIABLE,
    ALLOW_URL_VARIABLE,
    DB_VARIABLE,
    DEFAULT_DB,
    GALLERY_MEMORY_VARIABLE,
    REPLAY_PROTECTION_VARIABLE,
    STRICT_VARIABLE,
    RecognizerName,
    RecognizerOption,
)
from face_async.cli.output import say, tell
from face_async.session import ACCOUNT_VARIABLES, BASE_URL_VARIABLE, ProjectAccess, is_loopback

if TYPE_CHECKING:
    from face_async.server import Account, AccountsFile, Certificate, ServerSettings


class LogLevel(enum.StrEnum):
    """From where on the server's log is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve_command(
    *,
    db: Annotated[
        str,
        typer.Option(
            "--db",
            metavar="PATH_OR_URL",
            envvar=DB_VARIABLE,
            help=DATABASE_HELP,
        ),
    ] = str(DEFAULT_DB),
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="The port; 0 takes a free one.")] = 8600,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="How many processes serve.")] = 1,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    replay_protection: Annotated[
        bool,
        typer.Option(
            "--replay-protection", envvar=REPLAY_PROTECTION_VARIABLE, help="Accept every signature only once."
        ),
    ] = False,
    gallery_memory: Annotated[
        int | None,
        typer.Option(
            "--gallery-memory",
            metavar="MB",
            envvar=GALLERY_MEMORY_VARIABLE,
            min=1,
            help="Memory for the faces of the groups used last, about 600 bytes a face; "
            "by default a quarter of the machine's memory or the container's.",
        ),
    ] = None,
    body_memory: Annotated[
        int | None,
        typer.Option(
            "--body-memory",
            metavar="MB",
            min=1,
            help="Memory for the bodies of all requests under way, in each process of --workers; "
            "by default 128, or an eighth of a small machine's.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            envvar=STRICT_VARIABLE,
            help="Take only requests as the specification and the official clients send them.",
        ),
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            envvar=ALLOW_ORIGIN_VARIABLE,
            help="An origin whose web pages may call the server, such as https://example.com; may be repeated.",
        ),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            "--max-connections",
            min=1,
            help="Connections open at once, in each process of --workers; by default half of the files that may be "
            "open, at most 4,096.",
        ),
    ] = None,
    max_per_address: Annotated[
        int | None,
        typer.Option(
            "--max-connections-per-address",
            min=1,
            help="Connections open at once from one address, in each process of --workers; behind a proxy all clients "
            "have its address.",
        ),
    ] = None,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-url",
            metavar="HOST",
            envvar=ALLOW_URL_VARIABLE,
            help="A host that pictures may be fetched from; may be repeated.",
        ),
    ] = None,
    keep_thumbnails: Annotated[
        bool,
        typer.Option("--keep-thumbnails", help="Store a small picture of each face with it, for the page of --ui."),
    ] = False,
    ui: Annotated[
        bool, typer.Option("--ui", help="Serve a page for people, too, and print the link that opens it.")
    ] = False,
    ui_host: Annotated[
        list[str] | None,
        typer.Option(
            "--ui-host",
            metavar="NAME",
            help="A name by which browsers may ask for the page, beside addresses and localhost; may be repeated.",
        ),
    ] = None,
    accounts: Annotated[
        Path | None,
        typer.Option(
            "--accounts",
            metavar="FILE",
            envvar=ACCOUNTS_VARIABLE,
            help="A JSON file of the accounts that exist, which is read again when it has changed.",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            "--cert", metavar="FILE", help="Speak https, with this certificate (PEM, with its chain) and --key."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The private key of the certificate --cert (PEM).")
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="What is logged; info: every call, warning: refused signatures.")
    ] = LogLevel.WARNING,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write each entry of the log as a line of JSON.")
    ] = False,
) -> None:
    """Run the local server until Ctrl-C, and print the environment that uses it.

    The account is that of the environment: FACE_ASYNC_APPID, FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_ID and
    FACE_ASYNC_SECRET_KEY; or those of --accounts. Without either a random one is made at the first start and kept
    beside the database; it is printed, ready to paste, and only this machine can reach the server.
    """
    from face_async.server import Certificate, ConnectionLimits, ServerSettings, serve_workers  # noqa: PLC0415 - slow
    from face_async.server import serve as run  # noqa: PLC0415
    from face_async.server.operations.logs import configure_logs  # noqa: PLC0415
    from face_async.server.page import PageAccess  # noqa: PLC0415
    from face_async.server.storage.names import without_password  # noqa: PLC0415

    check_argument(db)
    if (cert is None) != (key is None):
        raise ValueError("--cert and --key go together: name both files")
    certificate = Certificate(cert, key) if cert and key else None
    is_named = accounts is not None or ProjectAccess.from_env() is not None
    if not is_named and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from elsewhere: set {', '.join(ACCOUNT_VARIABLES)}, or name --accounts"
        )
    log = partial(configure_logs, log_level.value, json_lines=log_json)
    log()  # instead of one short line each
    settings = ServerSettings(
        db,
        (),
        recognizer=recognizer.value,
        replay_protection=replay_protection,
        strict=strict,
        gallery_memory=None if gallery_memory is None else gallery_memory * 1_000_000,
        body_memory=None if body_memory is None else body_memory * 1_000_000,
        allow_origins=tuple(allow_origin or ()),
        url_allow_list=tuple(allow_url or ()),
        keep_thumbnails=keep_thumbnails,
        page=PageAccess(ui_host or (), shared=workers > 1) if ui else None,
    )
    _check_start(settings, host, port, certificate)
    settings = evolve(settings, accounts=_accounts(accounts, db))
    limits = ConnectionLimits(max_connections=max_connections, max_per_address=max_per_address)

    def announce(base_url: str) -> None:
        shown = {BASE_URL_VARIABLE: base_url} if is_named else _environment(settings.first_account(), base_url)
        for name, value in shown.items():
            say(f"export {name}={shlex.quote(value)}")
        where = (
            base_url
            if is_loopback(host)
            else _("{host}, on this machine {base_url}").format(host=host, base_url=base_url)
        )
        by = "" if workers == 1 else _(" by {workers} processes").format(workers=workers)
        tell(_("serving {db} on {where}{by}; Ctrl-C stops it").format(db=without_password(db), where=where, by=by))

    if workers > 1:
        serve_workers(
            settings,
            workers=workers,
            host=host,
            port=port,
            limits=limits,
            certificate=certificate,
            on_ready=announce,
            on_start=log,
            on_link=_tell_link,
        )
    else:

        def announce_page(base_url: str) -> None:
            announce(base_url)
            if settings.page:
                settings.page.announce(lambda path: _tell_link(f"{base_url}{path}"))

        with settings.serving() as app:
            run(app, host=host, port=port, limits=limits, certificate=certificate, on_ready=announce_page)
    tell(_("stopped"))


def _check_start(settings: ServerSettings, host: str, port: int, certificate: Certificate | None) -> None:
    """Check that the server could start, before a database and an account are made for it.

    Raises:
        OSError: It cannot listen, or the certificate cannot be used.
        ValueError, ImportError: The settings cannot be used.
    """
    from face_async.server.background import listen  # noqa: PLC0415 - slow to import
    from face_async.server.storage.sqlite.database import MEMORY  # noqa: PLC0415

    with listen(host, port), evolve(settings, database=MEMORY).serving():
        pass
    if certificate is not None:
        certificate.check()


def _accounts(file: Path | None, db: str) -> AccountsFile | tuple[Account, ...]:
    """Return the accounts that exist: a file's, the environment's, or the one that was made up for the database."""
    from face_async.local import LOCAL_APPID, LOCAL_BUCKET, random_credentials  # noqa: PLC0415 - slow to import
    from face_async.server import Account, AccountsFile, open_storage  # noqa: PLC0415
    from face_async.server.operations.accounts import kept_accounts  # noqa: PLC0415
    from face_async.server.storage.names import is_postgres_url  # noqa: PLC0415
    from face_async.server.storage.sqlite.database import MEMORY  # noqa: PLC0415

    project = ProjectAccess.from_env()
    if file is None and project is not None:
        return (Account(project.appid, (project.bucket,), project.credentials),)
    made_up = Account(LOCAL_APPID, (LOCAL_BUCKET,), random_credentials())
    if file is None and (db == MEMORY or is_postgres_url(db)):
        return (made_up,)
    if file is None:
        with open_storage(db, gallery_memory=0):
            pass  # what is no storage gets no account
    return AccountsFile(file or kept_accounts(Path(db), made_up))


def _tell_link(link: str) -> None:
    tell(_("the page, by a link that is good once: {link}").format(link=link))


def _environment(account: Account, base_url: str) -> dict[str, str]:
    """Return the environment that leads to an account."""
    return ProjectAccess(account.appid, account.buckets[0], account.credentials).environment(base_url)
