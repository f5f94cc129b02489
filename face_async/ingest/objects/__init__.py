"""Files in object storage: ``s3://bucket/key``, ``gs://bucket/key`` and ``az://container/key``, through obstore.

Credentials come from the environment, by obstore's names (see :data:`VARIABLES`), or from the role of the machine. What
follows the bucket is the key as it is: nothing in it is percent-decoded. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from face_async.errors import FaceError, ImageRefusedError, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for other services than AWS, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": f"{_ACCOUNT} and AZURE_STORAGE_ACCOUNT_KEY",
}
"""The schemes, and the variables of the environment that each reads."""

Version: TypeAlias = "dict[str, str]"
"""Which content an object has: only the one who knows it may replace that."""

_READ_FROM = ("AWS_", "AZURE_", "GOOGLE_")
_SCHEMES = tuple(f"{scheme}://" for scheme in VARIABLES)
_URL = re.compile(rf"(?P<root>(?:{'|'.join(VARIABLES)})://[\w$][\w.$-]*)(?:/(?P<key>.*))?", re.DOTALL)
_SIGNED = re.compile(r"[?&](sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid)=", re.IGNORECASE)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")
_METADATA = ("169.254.169.254", "metadata.google.internal")  # asked for a role's credentials where none are set
_INVALID_NAME = "invalid path"
_REFUSED = re.compile(r"status code: 40[13]\b")
_ANSWER = re.compile(r"(?<=status code: \d{3}) .*")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_LONGEST = 300  # characters in a message
_user: dict[str, int] = {}  # the process that has used object storage first
_LISTED_AT_ONCE = 1_000
_BUFFER = 1_048_576
_PATIENT = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
_HASTY = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}


class ObjectStorageError(FaceError):
    """The object storage cannot be used: it is out of reach, refuses access, or has no such bucket."""


def is_object_url(text: str) -> bool:
    """Return whether a str names something in object storage."""
    return text.startswith(_SCHEMES)


class ObjectFolder:
    """What is below a URL in object storage; names are relative to it.

    Args:
        url: The URL, such as ``s3://bucket/people``; a ``/`` at its end changes nothing.

    Raises:
        ValueError: It is no such URL, or has a signature or credentials in it.
        ModuleNotFoundError: obstore is missing (extra ``fleet``).

    All methods raise :class:`ObjectStorageError` when the storage cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._root, self._prefix = split_url(url)
        self.url = f"{self._root}/{self._prefix}".rstrip("/")
        self._obstore: Any = _obstore()
        self._store = _store(self._root, hasty=False)

    def check(self) -> None:
        """Ask once whether the storage can be used, without the patience that a run has."""
        with _explained(self._root):
            next(iter(self._obstore.list(_store(self._root, hasty=True), self._prefix or None, chunk_size=1)), None)

    def names(self, below: str = "") -> Iterator[tuple[str, int]]:
        """Yield the names below a name, and the sizes of the objects in bytes; in the order that the storage gives."""
        prefix = self._key(below).rstrip("/")
        skip = len(self._prefix) + 1 if self._prefix else 0
        with _explained(self._root):
            for some in self._obstore.list(self._store, prefix or None, chunk_size=_LISTED_AT_ONCE):
                for found in some:
                    yield found["path"][skip:], found["size"]

    def get(self, name: str) -> bytes | None:
        """Return an object's content, None if there is no such object."""
        found = self.get_version(name)
        return None if found is None else found[0]

    def get_version(self, name: str) -> tuple[bytes, Version] | None:
        """Return an object's content and which version that is, None if there is no such object."""
        try:
            with _explained(self._root):
                found = self._obstore.get(self._store, self._key(name))
                return bytes(found.bytes()), _version(found.meta)
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Return whether there is an object of this name."""
        try:
            with _explained(self._root):
                self._obstore.head(self._store, self._key(name))
        except FileNotFoundError:
            return False
        return True

    def fetch(self, name: str, path: Path) -> bool:
        """Write an object's content into a file; return False if there is no such object."""
        try:
            with _explained(self._root), path.open("wb") as file:
                for piece in self._obstore.get(self._store, self._key(name)):
                    file.write(piece)
        except FileNotFoundError:
            path.unlink()
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete an object; it need not be there."""
        with contextlib.suppress(FileNotFoundError), _explained(self._root):
            self._obstore.delete(self._store, self._key(name))

    def put(self, name: str, content: bytes | Path, *, hasty: bool = False) -> None:
        """Make an object as a whole, over one that is there; with ``hasty`` without the patience that a run has."""
        store = _store(self._root, hasty=True) if hasty else self._store
        with _explained(self._root):
            self._obstore.put(store, self._key(name), content)

    def create(self, name: str, content: bytes) -> Version | None:
        """Make an object that is not there yet; return its version, None if there is one."""
        return self._put_if(name, content, "create")

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        """Replace a version of an object; return the new one, None if it is another version by now."""
        return self._put_if(name, content, version)

    def _put_if(self, name: str, content: bytes, mode: str | Version) -> Version | None:
        errors = self._obstore.exceptions
        try:
            with _explained(self._root):
                return _version(self._obstore.put(self._store, self._key(name), content, mode=mode))
        except (errors.AlreadyExistsError, errors.PreconditionError):
            # An answer may have been lost, and the request sent again: then what is there is what was to be.
            found = self.get_version(name)
            return found[1] if found is not None and found[0] == content else None

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def read_picture(url: str, check_size: Callable[[int], object] | None = None) -> bytes:
    """Return a picture's content; before it is read, ``check_size`` is called with its size in bytes.

    Raises:
        FileNotFoundError: It is not there.
        ImageRefusedError: Nothing can be there under such a name.
        ObjectStorageError: The storage cannot be used.
    """
    root, key = split_url(url)
    try:
        with _explained(root):
            found = _obstore().get(_store(root, hasty=False), key)
            if check_size is not None:
                check_size(int(found.meta["size"]))
            return bytes(found.bytes())
    except ValueError as error:
        raise ImageRefusedError(f"the image {quoted(url)} cannot be read: {_first_line(error)}") from None


def open_object(url: str) -> BinaryIO:
    """Return an object as a file to read.

    Raises:
        FileNotFoundError: It is not there.
        ObjectStorageError: The storage cannot be used.
    """
    root, key = split_url(url)
    with _explained(root):
        _obstore().head(_store(root, hasty=True), key)
        reader = _obstore().open_reader(_store(root, hasty=False), key, buffer_size=_BUFFER)
    return cast("BinaryIO", io.BufferedReader(_Raw(reader, root), _BUFFER))


class _Raw(io.RawIOBase):
    """A reader of obstore as the standard library has files."""

    def __init__(self, reader: Any, root: str) -> None:
        self._reader = reader
        self._root = root

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any, /) -> int:
        with _explained(self._root):
            piece = bytes(self._reader.read(len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def split_url(url: str) -> tuple[str, str]:
    """Return the bucket's URL, and the key without slashes at its ends.

    Raises:
        ValueError: It is no URL of object storage, or has credentials or a signature in it.
    """
    found = _URL.fullmatch(url)
    if found is None or _SIGNED.search(url):  # which is not quoted: it may have a secret in it
        raise ValueError(
            f"a URL of object storage must be {' or '.join(f'{scheme}BUCKET/KEY' for scheme in _SCHEMES)}, without "
            "credentials or a signature in it: they come from the environment"
        )
    return found["root"], (found["key"] or "").strip("/")


def _obstore() -> Any:
    try:
        return import_module("obstore")  # extra "fleet"; with its own types only where it is installed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "object storage needs obstore: pip install 'face_async[fleet]'", name=error.name
        ) from None


def _store(root: str, *, hasty: bool) -> Any:
    if (
        _user.setdefault("pid", os.getpid()) != os.getpid()
    ):  # obstore's threads are not in it, and it would wait for ever
        raise ObjectStorageError(
            f"{root} cannot be used in a process that was forked from one that has used object storage: let the "
            'executor begin its processes by "spawn", as multiprocessing.get_context("spawn") does'
        )
    environment = frozenset((name, value) for name, value in os.environ.items() if name.startswith(_READ_FROM))
    with _explained(root):
        return _opened(root, environment, hasty)


@lru_cache(maxsize=16)
def _opened(root: str, environment: frozenset[tuple[str, str]], hasty: bool) -> Any:  # noqa: FBT001 - of a cache
    # obstore reads the environment itself, but for the account's name; another environment is another store.
    options: dict[str, object] = {"retry_config": _HASTY if hasty else _PATIENT}
    if root.startswith("az:"):
        options["account_name"] = dict(environment).get(_ACCOUNT)
        if not options["account_name"]:
            raise ObjectStorageError(f"{root} cannot be used without the account's name: set {VARIABLES['az']}")
    _obstore()
    return import_module("obstore.store").from_url(root, **options)


def _version(meta: Any) -> Version:
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


@contextlib.contextmanager
def _explained(root: str) -> Generator[None]:
    """Turn the storage's errors into ones that say what to do; an object that is not there stays FileNotFoundError."""
    errors = _obstore().exceptions
    try:
        yield
    except (errors.AlreadyExistsError, errors.PreconditionError):
        raise
    except (errors.BaseError, FileNotFoundError) as error:
        text = str(error)
        if not any(sign in text for sign in _NO_BUCKET) and isinstance(error, FileNotFoundError):
            raise FileNotFoundError(_first_line(error)) from None
        raise ObjectStorageError(f"{root} {_advice(root, error, text, errors)}") from None


def _advice(root: str, error: Exception, text: str, errors: Any) -> str:
    variables = VARIABLES[root.partition(":")[0]]
    if any(sign in text for sign in _NO_BUCKET):
        return "is not there: create the bucket, or mend its name"
    if any(sign in text for sign in _METADATA):
        return f"cannot be used without credentials: set {variables}"
    if _INVALID_NAME in text:
        return f"has an object under a name that cannot be used: rename it ({_first_line(error)})"
    refused = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
    if refused or _REFUSED.search(text):  # a listing that is refused has no error of its own
        return f"refuses access: check what the environment sets by {variables} ({_first_line(error)})"
    return f"cannot be used: check the network, and what the environment sets by {variables} ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    """Return what an error says, without the storage's own words, and without a query, which may be signed."""
    text = str(error)
    line = re.sub(r"\?\S*", "", _ANSWER.sub("", text.partition("\n")[0]))
    code = _CODE.search(text)
    return printable(line if code is None else f"{line}: {code[1]}", _LONGEST)
