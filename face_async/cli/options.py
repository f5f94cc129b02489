"""The options that commands share, and the session that they lead to."""

from __future__ import annotations

import enum
import functools
import inspect
import os
import re
from contextvars import ContextVar
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, Unpack

import anyio
import typer
from attrs import evolve, field, frozen

from face_async import SAME_PERSON, SURELY_THE_SAME, Throttle
from face_async.cli.output import tell
from face_async.cli.progress import ProgressStyle
from face_async.errors import printable
from face_async.session import (
    ACCOUNT_VARIABLES,
    ALLOW_INSECURE_VARIABLE,
    BASE_URL_VARIABLE,
    CA_FILE_VARIABLE,
    DEFAULT_BASE_URL,
    HTTP_VARIABLE,
    FaceSession,
    ProjectAccess,
    SessionOptions,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

ALLOW_ORIGIN_VARIABLE = "FACE_ASYNC_ALLOW_ORIGIN"
DB_VARIABLE = "FACE_ASYNC_DB"
ACCOUNTS_VARIABLE = "FACE_ASYNC_ACCOUNTS"
ALLOW_URL_VARIABLE = "FACE_ASYNC_ALLOW_URL"
GALLERY_MEMORY_VARIABLE = "FACE_ASYNC_GALLERY_MEMORY"
RECOGNIZER_VARIABLE = "FACE_ASYNC_RECOGNIZER"
REPLAY_PROTECTION_VARIABLE = "FACE_ASYNC_REPLAY_PROTECTION"
STRICT_VARIABLE = "FACE_ASYNC_STRICT"
"""What ``serve`` reads beside what a session does."""

SERVER_VARIABLES = frozenset(
    {
        ACCOUNTS_VARIABLE,
        ALLOW_ORIGIN_VARIABLE,
        ALLOW_URL_VARIABLE,
        DB_VARIABLE,
        GALLERY_MEMORY_VARIABLE,
        RECOGNIZER_VARIABLE,
        REPLAY_PROTECTION_VARIABLE,
        STRICT_VARIABLE,
    }
)
"""All that the server's factory reads beside the account."""

DEFAULT_DB = Path("faces.db")
_NO_FILE = Path(":memory:")

_URL = re.compile(r"postgres(ql)?:/")


class RecognizerName(enum.StrEnum):
    """The recognizers of the local server."""

    AUTO = "auto"
    FACES = "faces"
    DLIB = "dlib"  # what faces was called before
    FINGERPRINT = "fingerprint"


Db = Annotated[
    Path | None,
    typer.Option("--db", metavar="PATH", help="Use the embedded local server with this database.", show_default=False),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", envvar=BASE_URL_VARIABLE, help="Where the service is."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="PATH",
        envvar=CA_FILE_VARIABLE,
        help="Trust services whose certificates were issued by the authorities in this file (PEM).",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar=ALLOW_INSECURE_VARIABLE,
        help="Send pictures and signatures unencrypted (http) to another machine.",
    ),
]
RecognizerOption = Annotated[
    RecognizerName,
    typer.Option(
        "--recognizer",
        envvar=RECOGNIZER_VARIABLE,
        help="What recognizes faces on the local server; auto is faces if it is installed, and dlib means faces.",
    ),
]
PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id.")]
Threshold = Annotated[
    float,
    typer.Option(
        "--threshold",
        min=0,
        max=100,
        help="The confidence from which on it is the same person: "
        f"{SURELY_THE_SAME:g} where many are searched, {SAME_PERSON:g} where two are compared.",
    ),
]
AtOnce = Annotated[int, typer.Option("--at-once", metavar="N", min=1, max=1_000, help="Pictures under way at once.")]
FitOption = Annotated[bool, typer.Option("--fit", help="Make pictures that are too large for a request smaller.")]
AllowOutside = Annotated[
    bool,
    typer.Option(
        "--allow-outside", help="Take pictures outside of the folder, too, to which a link or a path in it leads."
    ),
]
ProgressOption = Annotated[
    ProgressStyle | None,
    typer.Option(
        "--progress",
        help="Show progress on stderr as a bar, or as a line every 10 seconds, or never. Without this option: "
        "a bar on a terminal, lines elsewhere.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, no table and no summary; errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


@frozen
class Trust:
    """Whom a command trusts with pictures and signatures; what is not said here the environment may say."""

    ca_file: Path | None = None
    insecure: bool = False


_trust: ContextVar[Trust] = ContextVar("face_async.cli.trust")


def trust() -> Trust:
    """Return whom the command that runs trusts."""
    return _trust.get(Trust())


def with_trust(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes ``--ca-file`` and ``--insecure``, too, if it takes ``--base-url``."""
    parameters = inspect.signature(command, eval_str=True).parameters
    if "base_url" not in parameters:
        return command

    @functools.wraps(command)
    def trusting(*args: object, ca_file: Path | None, insecure: bool, **options: object) -> None:
        token = _trust.set(Trust(ca_file, insecure))
        try:
            command(*args, **options)
        finally:
            _trust.reset(token)

    options = {"ca_file": (CaFile, None), "insecure": (Insecure, False)}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in options.items()
    ]
    trusting.__signature__ = inspect.Signature([*parameters.values(), *added])  # type: ignore[attr-defined]
    trusting.__annotations__ = {one.name: one.annotation for one in (*parameters.values(), *added)}
    return trusting


@frozen
class ServiceChoice:
    """The service that options and environment name: a real one, or the embedded local server."""

    database: Path | None  # None for a real service
    base_url: str | None  # of a real service; None for the documented host
    recognizer: RecognizerName = RecognizerName.AUTO
    trust: Trust = field(factory=trust)

    @classmethod
    def of(
        cls, db: Path | None, base_url: str | None, recognizer: RecognizerName = RecognizerName.AUTO
    ) -> ServiceChoice:
        """Return the service; a database that is named is preferred to a service.

        Raises:
            ValueError: The environment has only a part of an account.
        """
        if db is None and ProjectAccess.from_env() is not None:
            return cls(None, base_url, recognizer)
        if db is None and base_url:
            raise ValueError(f"{base_url} needs an account: set {', '.join(ACCOUNT_VARIABLES)}")
        if db is not None and _URL.match(str(db)):
            raise ValueError(
                f"{db} is no file: start face-async serve --db URL, and name that server with {BASE_URL_VARIABLE}"
            )
        return cls(db or DEFAULT_DB, None, recognizer)

    def open(self, **options: Unpack[SessionOptions]) -> AbstractAsyncContextManager[FaceSession]:
        """Return a session with the service."""
        if self.database is None:
            if not os.environ.get(HTTP_VARIABLE):
                options.setdefault("http", "asyncio")  # the cheapest, and commands run on asyncio
            if self.base_url:
                options["base_url"] = self.base_url
            if self.trust.ca_file:
                options["verify"] = self.trust.ca_file
            if self.trust.insecure:
                options["allow_insecure"] = True
            return FaceSession.from_env(**options)
        from face_async.local import local_session  # noqa: PLC0415 - needs the extra "server", a service does not

        return local_session(self.database, recognizer=self.recognizer.value, **options)

    @property
    def is_new(self) -> bool:
        """Whether it is the embedded server, and its database is not there yet."""
        return self.database is not None and not self.database.exists()

    def announce(self, new: str | None = None) -> None:
        """Say that it is the embedded server, which is used when nothing is configured; ``new`` tells of a new one."""
        if self.database is not None:
            words = (new or _("with a new database, {}")) if self.is_new else _("with its database {}")
            said = _("using the embedded local server {with_database} (set {variable} and so on for a service)")
            tell(said.format(with_database=words.format(self.database), variable=ACCOUNT_VARIABLES[0]))

    def announce_service(self) -> None:
        """Say which service it is, and for which account, if it is a real one."""
        if self.database is None and (project := ProjectAccess.from_env()) is not None:
            url = printable(self.base_url or DEFAULT_BASE_URL)
            tell(_("using the service {url} with appid {appid}").format(url=url, appid=printable(project.appid)))


def throttle_of(at_once: int, max_rate: float | None) -> Throttle:
    """Return the bounds of a run in one process: pictures under way, each with a call, and requests a second."""
    return Throttle(max_concurrency=max(at_once, Throttle().max_concurrency), max_rate=max_rate)


def ask(
    question: Callable[[FaceSession], Awaitable[T]],
    *,
    db: Path | None,
    base_url: str | None,
    recognizer: RecognizerName = RecognizerName.AUTO,
    quiet: bool = False,
    throttle: Throttle = Throttle(),
    confirm: Callable[[ServiceChoice], None] | None = None,
) -> T:
    """Open a session with the service that options and environment name; return what ``question`` returns for it.

    ``confirm`` is called before, and may raise.

    Who asks changes nothing that is there already, so a database that is missing is not made: an empty one answers.
    """
    service = ServiceChoice.of(db, base_url, recognizer)
    if not quiet:
        service.announce(_("without a database, as there is no {}"))
    if confirm is not None:
        confirm(service)
    return run_with(evolve(service, database=_NO_FILE) if service.is_new else service, question, throttle=throttle)


def run_with(
    service: ServiceChoice, question: Callable[[FaceSession], Awaitable[T]], **options: Unpack[SessionOptions]
) -> T:
    """Open a session with a service; return what ``question`` returns for it."""

    async def opened() -> T:
        async with service.open(**options) as session:
            return await question(session)

    return anyio.run(opened)
