"""``serve``: the local server as a program."""

from __future__ import annotations

import logging
import shlex
from ipaddress import ip_address
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from face_async.cli.options import DEFAULT_DB, Recognizer, RecognizerName, Service, configured_service
from face_async.cli.output import say, tell

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(
    *,
    db: Annotated[
        Path, typer.Option("--db", metavar="PATH", help="The database; made when it is missing.")
    ] = DEFAULT_DB,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="The port; 0 takes a free one.")] = 8600,
    recognizer: Recognizer = RecognizerName.AUTO,
    replay_protection: Annotated[
        bool, typer.Option("--replay-protection", help="Take every signature once only.")
    ] = False,
    allow_url: Annotated[
        list[str] | None,
        typer.Option("--allow-url", metavar="HOST", help="A host that pictures may be fetched from; may be repeated."),
    ] = None,
) -> None:
    """Run the local server until Ctrl-C, and print the environment that uses it.

    The account is the environment's: FACE_ASYNC_APPID, FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_ID and
    FACE_ASYNC_SECRET_KEY. Without them it is made up for this run and printed, ready to paste, and only this machine
    can reach the server.
    """
    from face_async.server import Account, Store, create_app  # noqa: PLC0415 - slow to import, so only here
    from face_async.server import serve as run  # noqa: PLC0415

    configured = configured_service()
    if configured is None and not _is_loopback(host):
        raise ValueError(f"{host} can be reached from elsewhere: set FACE_ASYNC_APPID and so on to an account first")
    service = configured or _made_up()
    with Store(db) as store:
        app = create_app(
            store,
            credentials=[Account(service.appid, (service.bucket,), service.credentials)],
            recognizer=recognizer.value,
            replay_protection=replay_protection,
            url_allow_list=allow_url or (),
        )
        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", force=True)  # a server's log may be long
        run(app, host=host, port=port, on_ready=_announce(service, made_up=configured is None, db=db))
    tell("stopped")


def _made_up() -> Service:
    from face_async.local import LOCAL_APPID, LOCAL_BUCKET, random_credentials  # noqa: PLC0415 - as above

    return Service(LOCAL_APPID, LOCAL_BUCKET, random_credentials())


def _announce(service: Service, *, made_up: bool, db: Path) -> Callable[[str], None]:
    def announce(base_url: str) -> None:
        environment = {"BASE_URL": base_url}
        if made_up:
            environment |= {
                "APPID": service.appid,
                "BUCKET": service.bucket,
                "SECRET_ID": service.credentials.secret_id,
                "SECRET_KEY": service.credentials.secret_key,
            }
        for name, value in environment.items():
            say(f"export FACE_ASYNC_{name}={shlex.quote(value)}")
        tell(f"serving {db} on {base_url}; Ctrl-C stops it")

    return announce


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
