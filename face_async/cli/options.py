"""The options that commands share, and the session that they ask for."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, Unpack

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
Fit = Annotated[bool, typer.Option("--fit", help="Make pictures smaller that are too large for a request.")]
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


@frozen
class Target:
    """The service that options and environment ask for: a real one, or the embedded local server.

    Attributes:
        database: The embedded server's database; None for a real service.
        base_url: Where a real service is; None for the documented host.
        recognizer: Who looks at the embedded server's pictures.
    """

    database: Path | None
    base_url: str | None
    recognizer: RecognizerName = RecognizerName.AUTO

    @classmethod
    def asked_for(
        cls, db: Path | None, base_url: str | None, recognizer: RecognizerName = RecognizerName.AUTO
    ) -> Target:
        """Return the one that is asked for; a database that is named goes before a service.

        Raises:
            ValueError: The environment describes half an account.
        """
        if db is None and configured_service() is not None:
            return cls(None, base_url, recognizer)
        if db is None and base_url:
            raise ValueError(f"not fully configured: {base_url} needs an account; set {', '.join(ACCOUNT_VARIABLES)}")
        return cls(db or DEFAULT_DB, None, recognizer)

    def open(self, **options: Unpack[SessionOptions]) -> AbstractAsyncContextManager[FaceSession]:
        """Return a session with it."""
        if self.database is None:
            if self.base_url:
                options["base_url"] = self.base_url
            return FaceSession.from_env(**options)
        from face_async.local import local_session  # noqa: PLC0415 - needs the extra "server", a service does not

        return local_session(self.database, recognizer=self.recognizer.value, **options)

    def announce(self) -> None:
        """Say which it is, if that may be news: the embedded server is what is used when nothing is configured."""
        if self.database is not None:
            kind = "its database" if self.database.exists() else "a new database,"
            advice = f"set {ACCOUNT_VARIABLES[0]} and so on for a service"
            tell(f"using the embedded local server with {kind} {self.database} ({advice})")


def ask(
    question: Callable[[FaceSession], Awaitable[T]],
    *,
    db: Path | None,
    base_url: str | None,
    recognizer: RecognizerName = RecognizerName.AUTO,
    quiet: bool = False,
) -> T:
    """Open the session that options and environment ask for, put a question to it, and return the answer."""
    target = Target.asked_for(db, base_url, recognizer)
    if not quiet:
        target.announce()
    return run_with(target, question)


def run_with(target: Target, question: Callable[[FaceSession], Awaitable[T]], **options: Unpack[SessionOptions]) -> T:
    """Open a session, put a question to it, and return the answer."""

    async def opened() -> T:
        async with target.open(**options) as session:
            return await question(session)

    return anyio.run(opened)
