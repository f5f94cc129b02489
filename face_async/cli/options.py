"""The options that commands share, and the session that they ask for."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import typer
from attrs import frozen

from face_async.cli.output import tell
from face_async.session import FaceSession, SessionOptions
from face_async.signature import Credentials

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

DEFAULT_DB = Path("faces.db")

_ACCOUNT_VARIABLES = ("FACE_ASYNC_APPID", "FACE_ASYNC_BUCKET", "FACE_ASYNC_SECRET_ID", "FACE_ASYNC_SECRET_KEY")
_BASE_URL_VARIABLE = "FACE_ASYNC_BASE_URL"


class RecognizerName(enum.StrEnum):
    """Who looks at the pictures on the local server."""

    AUTO = "auto"
    DLIB = "dlib"
    FINGERPRINT = "fingerprint"


Db = Annotated[
    Path | None,
    typer.Option("--db", metavar="PATH", help="Use the embedded local server with this database.", show_default=False),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", envvar=_BASE_URL_VARIABLE, help="Where the service is."),
]
Recognizer = Annotated[
    RecognizerName,
    typer.Option("--recognizer", help="Who looks at pictures on the local server; auto is dlib if it is installed."),
]
PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


@frozen
class Service:
    """Who we are to a service."""

    appid: str
    bucket: str
    credentials: Credentials


def configured_service() -> Service | None:
    """Return the account that the environment describes, None when it describes none.

    Raises:
        ValueError: It describes half of one.
    """
    values = {name: os.environ.get(name, "") for name in _ACCOUNT_VARIABLES}
    missing = [name for name, value in values.items() if not value]
    if len(missing) == len(values):
        return None
    if missing:
        raise ValueError(f"not fully configured: set {', '.join(missing)} as well, or unset all FACE_ASYNC_ variables")
    appid, bucket, secret_id, secret_key = values.values()
    return Service(appid, bucket, Credentials(secret_id, secret_key))


def ask(
    question: Callable[[FaceSession], Awaitable[T]],
    *,
    db: Path | None,
    base_url: str | None,
    recognizer: RecognizerName = RecognizerName.AUTO,
) -> T:
    """Open the session that options and environment ask for, put a question to it, and return the answer."""

    async def opened() -> T:
        async with _session(db, base_url, recognizer) as session:
            return await question(session)

    return anyio.run(opened)


def _session(
    db: Path | None, base_url: str | None, recognizer: RecognizerName
) -> AbstractAsyncContextManager[FaceSession]:
    if db is not None:
        return _embedded(db, recognizer)
    service = configured_service()
    if service is not None:
        where: SessionOptions = {"base_url": base_url} if base_url else {}
        return FaceSession(service.appid, service.bucket, service.credentials, **where)
    if base_url:
        raise ValueError(f"not fully configured: {base_url} needs an account; set {', '.join(_ACCOUNT_VARIABLES)}")
    return _embedded(DEFAULT_DB, recognizer)


def _embedded(db: Path, recognizer: RecognizerName) -> AbstractAsyncContextManager[FaceSession]:
    from face_async.local import local_session  # noqa: PLC0415 - needs the extra "server", which a service does not

    kind = "its database" if db.exists() else "a new database,"
    tell(f"using the embedded local server with {kind} {db} (set {_ACCOUNT_VARIABLES[0]} and so on for a service)")
    return local_session(db, recognizer=recognizer.value)
