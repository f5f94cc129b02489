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

# From 75 on the vendor speaks of about the same person; the local server's scale has dlib's usual threshold there.
SAME_PERSON = 75.0

ACCOUNT_VARIABLES = ("FACE_ASYNC_APPID", "FACE_ASYNC_BUCKET", "FACE_ASYNC_SECRET_ID", "FACE_ASYNC_SECRET_KEY")
BASE_URL_VARIABLE = "FACE_ASYNC_BASE_URL"


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
    typer.Option("--base-url", metavar="URL", envvar=BASE_URL_VARIABLE, help="Where the service is."),
]
Recognizer = Annotated[
    RecognizerName,
    typer.Option("--recognizer", help="Who looks at pictures on the local server; auto is dlib if it is installed."),
]
PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id.")]
Threshold = Annotated[
    float, typer.Option("--threshold", min=0, max=100, help="From which confidence on it is the same person.")
]
AtOnce = Annotated[
    int, typer.Option("--at-once", metavar="N", min=1, max=1_000, help="How many pictures are under way at once.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, no table and no summary; errors only.")]
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
    values = {name: os.environ.get(name, "") for name in ACCOUNT_VARIABLES}
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
    quiet: bool = False,
) -> T:
    """Open the session that options and environment ask for, put a question to it, and return the answer."""

    async def opened() -> T:
        async with _session(db, base_url, recognizer, quiet=quiet) as session:
            return await question(session)

    return anyio.run(opened)


def _session(
    db: Path | None, base_url: str | None, recognizer: RecognizerName, *, quiet: bool
) -> AbstractAsyncContextManager[FaceSession]:
    if db is not None:
        return _embedded(db, recognizer, quiet=quiet)
    if configured_service() is not None:
        return open_service(base_url)
    if base_url:
        raise ValueError(f"not fully configured: {base_url} needs an account; set {', '.join(ACCOUNT_VARIABLES)}")
    return _embedded(DEFAULT_DB, recognizer, quiet=quiet)


def open_service(base_url: str | None) -> FaceSession:
    """Return a session with the service that the environment describes."""
    where: SessionOptions = {"base_url": base_url} if base_url else {}
    return FaceSession.from_env(**where)


def _embedded(db: Path, recognizer: RecognizerName, *, quiet: bool) -> AbstractAsyncContextManager[FaceSession]:
    from face_async.local import local_session  # noqa: PLC0415 - needs the extra "server", which a service does not

    if not quiet:
        kind = "its database" if db.exists() else "a new database,"
        tell(f"using the embedded local server with {kind} {db} (set {ACCOUNT_VARIABLES[0]} and so on for a service)")
    return local_session(db, recognizer=recognizer.value)
