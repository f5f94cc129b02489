"""``serve``: run the local server."""

from __future__ import annotations

import logging
import shlex
from typing import Annotated

import typer

from face_async.cli.databases import DATABASE_HELP, check_argument
from face_async.cli.options import (
    ALLOW_ORIGIN_VARIABLE,
    DB_VARIABLE,
    DEFAULT_DB,
    RecognizerName,
    RecognizerOption,
)
from face_async.cli.output import say, tell
from face_async.session import ACCOUNT_VARIABLES, BASE_URL_VARIABLE, ProjectAccess, is_loopback


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
        bool, typer.Option("--replay-protection", help="Accept every signature only once.")
    ] = False,
    gallery_memory: Annotated[
        int | None,
        typer.Option(
            "--gallery-memory",
            metavar="MB",
            min=1,
            help="Memory for the faces of the groups used last, about 600 bytes a face; "
            "else a quarter of the machine's or the container's.",
        ),
    ] = None,
    body_memory: Annotated[
        int | None,
        typer.Option(
            "--body-memory",
            metavar="MB",
            min=1,
            help="Memory for the bodies of all requests under way; else 128, or an eighth of a small machine's.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Take only requests as the specification and the official clients have.")
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
            help="Connections open at once; else half of the files that may be open, at most 4,096.",
        ),
    ] = None,
    max_per_address: Annotated[
        int | None,
        typer.Option(
            "--max-connections-per-address",
            min=1,
            help="The same from one address, where the server is not behind a proxy.",
        ),
    ] = None,
    allow_url: Annotated[
        list[str] | None,
        typer.Option("--allow-url", metavar="HOST", help="A host that pictures may be fetched from; may be repeated."),
    ] = None,
) -> None:
    """Run the local server until Ctrl-C, and print the environment that uses it.

    The account is that of the environment: FACE_ASYNC_APPID, FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_ID and
    FACE_ASYNC_SECRET_KEY. Without them a random one is made for this run and printed, ready to paste, and only this
    machine can reach the server.
    """
    from face_async.local import LOCAL_APPID, LOCAL_BUCKET, random_credentials  # noqa: PLC0415 - slow to import
    from face_async.server import Account, ConnectionLimits, ServerSettings, serve_workers  # noqa: PLC0415
    from face_async.server import serve as run  # noqa: PLC0415
    from face_async.server.storage.names import without_password  # noqa: PLC0415

    check_argument(db)
    configured = ProjectAccess.from_env()
    if configured is None and not is_loopback(host):
        raise ValueError(f"{host} can be reached from elsewhere: set {', '.join(ACCOUNT_VARIABLES)} first")
    project = configured or ProjectAccess(LOCAL_APPID, LOCAL_BUCKET, random_credentials())

    def announce(base_url: str) -> None:
        environment = {BASE_URL_VARIABLE: base_url} if configured else project.environment(base_url)
        for name, value in environment.items():
            say(f"export {name}={shlex.quote(value)}")
        by = "" if workers == 1 else f" by {workers} processes"
        tell(f"serving {without_password(db)} on {base_url}{by}; Ctrl-C stops it")

    settings = ServerSettings(
        db,
        (Account(project.appid, (project.bucket,), project.credentials),),
        recognizer=recognizer.value,
        replay_protection=replay_protection,
        strict=strict,
        gallery_memory=None if gallery_memory is None else gallery_memory * 1_000_000,
        body_memory=None if body_memory is None else body_memory * 1_000_000,
        allow_origins=tuple(allow_origin or ()),
        url_allow_list=tuple(allow_url or ()),
    )
    limits = ConnectionLimits(max_connections=max_connections, max_per_address=max_per_address)
    if workers > 1:
        log_with_time()
        serve_workers(
            settings, workers=workers, host=host, port=port, limits=limits, on_ready=announce, on_start=log_with_time
        )
    else:
        with settings.serving() as app:
            log_with_time()
            run(app, host=host, port=port, limits=limits, on_ready=announce)
    tell("stopped")


def log_with_time() -> None:
    """Let the server's log tell the time; instead of one short line each, as other commands say it."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", force=True)
