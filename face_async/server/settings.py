"""What a server is made from, in each of its processes."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import evolve, field, frozen

from face_async.errors import quoted
from face_async.server.app import create_app
from face_async.server.bounds.admission import RequestLimits
from face_async.server.guard import Account
from face_async.server.operations.accounts import AccountsFile
from face_async.server.storage.base import StoreError
from face_async.server.storage.opening import open_storage
from face_async.signature import ACCOUNT_VARIABLES, Credentials

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from face_async.server.page import PageAccess
    from face_async.server.storage.storage import Storage


_TRUTHS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@frozen
class ServerSettings:
    """What :func:`open_storage` and :func:`create_app` take, as it goes from a process to its workers.

    Attributes:
        database: A path or a URL (:func:`open_storage`).
        accounts: The accounts that exist, or a file of them.
        recognizer: The recognizer's name.
        replay_protection: Whether a signature is good for one request only.
        strict: Whether requests must be as the specification and the official clients have them.
        gallery_memory: Bytes that the galleries of a process may take; None: a quarter of the memory.
        body_memory: Bytes that the bodies of all requests under way in a process may take; None: as
            :class:`RequestLimits` has it.
        allow_origins: Origins whose web pages may call the server.
        url_allow_list: Hosts from which pictures may be fetched.
        keep_thumbnails: Whether small pictures of faces are stored with them.
        page: Who may use the page for people, of the first account; None for no page.
    """

    database: str
    accounts: tuple[Account, ...] | AccountsFile = field(repr=False)
    recognizer: str = "auto"
    replay_protection: bool = False
    strict: bool = False
    gallery_memory: int | None = None
    body_memory: int | None = None
    allow_origins: tuple[str, ...] = ()
    url_allow_list: tuple[str, ...] = ()
    keep_thumbnails: bool = False
    page: PageAccess | None = field(default=None, repr=False)

    @classmethod
    def from_env(cls) -> Self:
        """Return what the environment says.

        Raises:
            ValueError: A variable is missing, or has a value that cannot be used.
        """
        megabytes = os.environ.get("FACE_ASYNC_GALLERY_MEMORY")
        if megabytes and not megabytes.isdecimal():
            raise ValueError(f"FACE_ASYNC_GALLERY_MEMORY must be a number of megabytes, not {quoted(megabytes)}")
        return cls(
            os.environ.get("FACE_ASYNC_DB") or "faces.db",
            _accounts_from_env(),
            recognizer=os.environ.get("FACE_ASYNC_RECOGNIZER") or "auto",
            replay_protection=_truth("FACE_ASYNC_REPLAY_PROTECTION"),
            strict=_truth("FACE_ASYNC_STRICT"),
            gallery_memory=int(megabytes) * 1_000_000 if megabytes else None,
            allow_origins=tuple(os.environ.get("FACE_ASYNC_ALLOW_ORIGIN", "").split()),
            url_allow_list=tuple(os.environ.get("FACE_ASYNC_ALLOW_URL", "").split()),
        )

    @contextlib.contextmanager
    def serving(self) -> Generator[ASGIApp]:
        """Return the application over its storage, which is closed at the end; before it is the page, if there is one.

        Raises:
            StoreError: The storage cannot be used.
            ValueError: There is no such recognizer, or an entry of a list cannot be read.
        """
        with self.open() as storage:
            app = self.create(storage)
            yield app if self.page is None else self._with_page(self.page, app, storage)

    def open(self) -> Storage:
        """Open the storage."""
        return open_storage(self.database, gallery_memory=self.gallery_memory)

    def empty_log(self) -> None:
        """Empty the log beside a SQLite database, if there still is one.

        Processes that close a database at the same moment each leave that to the other.
        """
        if Path(f"{os.path.realpath(self.database)}-wal").exists():
            with contextlib.suppress(StoreError):  # it is emptied when the database is next opened
                self.open().close()

    def create(self, storage: Storage) -> Starlette:
        """Return the application over a storage."""
        return create_app(
            storage,
            credentials=self.accounts,
            request_limits=RequestLimits(max_body_bytes=self.body_memory),
            recognizer=self.recognizer,
            replay_protection=self.replay_protection,
            strict=self.strict,
            url_allow_list=self.url_allow_list,
            allow_origins=self.allow_origins,
            metrics=True,
            keep_thumbnails=self.keep_thumbnails,
        )

    def reread(self) -> Self:
        """Return these settings with a file of accounts as it is now, for a process that starts after it was read.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no list of accounts.
        """
        accounts = self.accounts
        return evolve(self, accounts=AccountsFile(accounts.path)) if isinstance(accounts, AccountsFile) else self

    def first_account(self) -> Account:
        """Return the first of the accounts that there are now."""
        return (self.accounts.current() if isinstance(self.accounts, AccountsFile) else self.accounts)[0]

    def _with_page(self, access: PageAccess, app: ASGIApp, storage: Storage) -> ASGIApp:
        from face_async.server.page import Page  # noqa: PLC0415 - slow to import

        return Page(app, storage, self.first_account, access)


def create_app_from_env() -> Starlette:
    """Return the application that the environment describes: a factory for any ASGI server.

    ``uvicorn --factory face_async.server:create_app_from_env --workers 4``, for example. It reads
    ``FACE_ASYNC_APPID``, ``FACE_ASYNC_BUCKET``, ``FACE_ASYNC_SECRET_ID`` and ``FACE_ASYNC_SECRET_KEY``, or
    ``FACE_ASYNC_ACCOUNTS`` (:class:`~face_async.server.AccountsFile`); and, if they are set, ``FACE_ASYNC_DB`` (a path
    or a URL, else ``faces.db``), ``FACE_ASYNC_RECOGNIZER``,
    ``FACE_ASYNC_REPLAY_PROTECTION`` and ``FACE_ASYNC_STRICT`` (1 or 0), ``FACE_ASYNC_GALLERY_MEMORY`` (megabytes for
    each process), ``FACE_ASYNC_ALLOW_ORIGIN`` and ``FACE_ASYNC_ALLOW_URL`` (separated by spaces).

    The storage is closed when the process ends.

    Raises:
        ValueError: A variable is missing, or has a value that cannot be used.
        StoreError: The storage cannot be used.
    """
    settings = ServerSettings.from_env()
    storage = settings.open()
    try:
        app = settings.create(storage)
    except BaseException:
        storage.close()
        raise
    weakref.finalize(app, storage.close)  # without lifespan events nothing else tells the end
    return app


def _accounts_from_env() -> tuple[Account, ...] | AccountsFile:
    if path := os.environ.get("FACE_ASYNC_ACCOUNTS"):
        return AccountsFile(path)
    if missing := [name for name in ACCOUNT_VARIABLES if not os.environ.get(name)]:
        raise ValueError(f"set the environment variables {', '.join(missing)}, or FACE_ASYNC_ACCOUNTS")
    appid, bucket, secret_id, secret_key = ACCOUNT_VARIABLES
    # The values stand in no variable here: a traceback that shows variables would show them.
    credentials = Credentials(os.environ[secret_id], os.environ[secret_key])
    return (Account(os.environ[appid], (os.environ[bucket],), credentials),)


def _truth(name: str) -> bool:
    value = os.environ.get(name, "").lower()
    if value not in _TRUTHS:
        raise ValueError(f"{name} must be 1 or 0, not {quoted(value)}")
    return _TRUTHS[value]
