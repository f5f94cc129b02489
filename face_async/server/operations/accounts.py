"""Accounts in files: those that an operator lists, and the one made up at the first start.

::

    [
      {"appid": "123456", "buckets": ["test"], "secret_id": "AKID…", "secret_key": "…"},
      {"appid": "123456", "buckets": ["test"], "secret_id": "AKID…", "secret_key": "…"}
    ]

A key is rotated by listing the new one beside the old one, and taking the old one out once no client uses it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from face_async.server.guard import Account, Guard, keys_of
from face_async.signature import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger("face_async.server")

_LOOK_SECONDS = 1.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class AccountsFile:
    """The accounts that a file lists; it is read again when it has changed, at most once a second.

    While what it says cannot be read, the accounts of before stay.

    Args:
        path: The file. A warning is logged when others than its owner may read it.

    Attributes:
        path: The file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no list of accounts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._state: tuple[int, ...] | None = self._look()
        self._accounts = read_accounts(self.path)
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def current(self) -> tuple[Account, ...]:
        """Return the accounts: the same tuple until the file has changed."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._read_if_changed()
        return self._accounts

    def _read_if_changed(self) -> None:
        before = self._state
        try:
            self._state = self._look()
            if self._state != before:
                self._accounts = read_accounts(self.path)
                logger.info("%s was read again: %d accounts", self.path, len(self._accounts))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                self._state = None
            if self._state != before:
                logger.error("the accounts stay as they were: %s", error)  # noqa: TRY400 - no traceback for that

    def _look(self) -> tuple[int, ...]:
        found = self.path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


class CurrentGuard:
    """The guard of the accounts that there are now.

    Args:
        accounts: The accounts.
        make: Makes a guard for accounts.
    """

    def __init__(self, accounts: AccountsFile, make: Callable[[Sequence[Account]], Guard]) -> None:
        self._file = accounts
        self._make = make
        self._accounts = accounts.current()
        self._guard = make(self._accounts)

    def __call__(self) -> Guard:
        """Return the guard."""
        accounts = self._file.current()
        if accounts is not self._accounts:
            self._guard = self._make(accounts)
            self._accounts = accounts
        return self._guard


def read_accounts(path: Path) -> tuple[Account, ...]:
    """Return the accounts that a file lists, at least one.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no list of accounts.
    """
    with path.open("rb") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
            logger.warning("%s has secrets in it, and not only its owner may read it: chmod 600 %s", path, path)
        content = file.read()
    try:
        found = cast("object", json.loads(content))
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no JSON: it must be a list of accounts") from None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{path} must be a list of at least one account")
    accounts = tuple(
        _account(each, f"account {number} of {path}") for number, each in enumerate(cast("list[object]", found), 1)
    )
    try:
        keys_of(accounts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return accounts


def kept_accounts(database: Path, first: Account) -> Path:
    """Return the file of accounts beside a database, made with mode 0600 when it is missing.

    Args:
        database: The database; the file is named the same with ``-accounts`` behind, as the file that a symbolic link
            leads to, unless there is one already that is named as the link.
        first: The account in a file that is made.

    Raises:
        OSError: It cannot be made.
    """
    named, path = (Path(f"{name}-accounts") for name in (database, database.resolve()))
    if named.exists():
        return named
    if not path.exists():
        _write_new(path, first)
    return path


def _write_new(path: Path, account: Account) -> None:
    entry = {
        "appid": account.appid,
        "buckets": list(account.buckets),
        "secret_id": account.credentials.secret_id,
        "secret_key": account.credentials.secret_key,
    }
    # Made whole under another name, with mode 0600; of two processes that start together, one is the first.
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
            json.dump([entry], file, indent=2)
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


def _account(value: object, where: str) -> Account:
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    texts = [fields.get(name) for name in ("appid", "secret_id", "secret_key")]
    buckets = fields.get("buckets")
    names = cast("list[object]", buckets) if isinstance(buckets, list) else []
    if names and all(isinstance(each, str) and each for each in (*texts, *names)):
        appid, secret_id, secret_key = map(str, texts)
        try:
            return Account(appid, tuple(map(str, names)), Credentials(secret_id, secret_key))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    raise ValueError(
        f"{where} must have appid, secret_id and secret_key, which are texts, and buckets, a list of texts"
    )
