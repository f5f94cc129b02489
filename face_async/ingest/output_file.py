"""Files that are written for people: beside their place, which they take once they are complete.

What was there before stays until then, whatever happens, and is never lost if it is anything else than such a file.
"""

from __future__ import annotations

import contextlib
import errno
import mimetypes
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from face_async.errors import FaceError
from face_async.images import Picture
from face_async.ingest.schema import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIDE_FILES = ("-wal", "-shm", "-journal", "-signatures")  # of a database, named after it
_HEAD_BYTES = 16
_KEPT_BY_HEAD = (
    (b"SQLite format 3\0", "a database or a journal"),
    (b"\x37\x7f\x06\x82", "a database's log"),
    (b"\x37\x7f\x06\x83", "a database's log"),
    (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", "a database's journal"),
    (b"\x7fELF", "a program"),
    (b"#!", "a program"),
)


class OutputError(FaceError):
    """A file that was asked for would be written over something that must be kept."""


def check_output(path: str | os.PathLike[str], *, sources: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse to write a file that could not be written, or over something that must be kept.

    That is: a source, a database, a journal or a file beside one of them, a picture, a program, a folder, a link, and
    whatever is no regular file.

    Args:
        path: The file.
        sources: Files that are read or kept, whether they are there already or not; and folders whose sub-folders
            have pictures, in which nothing is written as it would be taken for one.

    Raises:
        OutputError: It would be written over such a thing.
        OSError: It cannot be written.
    """
    place = Path(path)
    for source in map(Path, sources):
        _check_source(place, source)
    for ending in _SIDE_FILES:
        if place.name.endswith(ending) and place.with_name(place.name.removesuffix(ending)).exists():
            raise _refusal(place, "belongs to a database or a journal")
    if not place.parent.is_dir():
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
    if not os.access(place.parent, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(place.parent))
    with contextlib.suppress(FileNotFoundError):
        _check_present(place, place.lstat().st_mode)


def _check_source(place: Path, source: Path) -> None:
    where, kept, name = _real(place), _real(source), shown(str(source))
    if where in (kept, *(kept.with_name(kept.name + ending) for ending in _SIDE_FILES)) or _is_same(place, source):
        raise _refusal(place, f"is {name}, which is used itself" if where == kept else f"belongs to {name}")
    if kept in where.parents[1:]:
        raise _refusal(place, f"is in a folder of pictures below {name}, and would be taken for one")


def _check_present(place: Path, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise _refusal(place, "is a link")
    if not stat.S_ISREG(mode):
        raise _refusal(place, "is no regular file")
    with place.open("r+b") as file:  # it could be replaced even where it may not be written
        head = file.read(_HEAD_BYTES)
    kept = next((kind for start, kind in _KEPT_BY_HEAD if head.startswith(start)), None)
    if kept is None and _is_picture(place):
        kept = "a picture"
    if kept is not None:
        raise _refusal(place, f"is {kept}")


def _is_picture(place: Path) -> bool:
    picture = Picture(place)
    picture.look(keep_up_to=0)
    return picture.is_known or (mimetypes.guess_type(place.name)[0] or "").startswith("image/")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _refusal(place: Path, reason: str) -> OutputError:
    return OutputError(f"{shown(str(place))} {reason}: name another file to write")


class OutputFile(contextlib.AbstractContextManager["OutputFile"]):
    """A text file in UTF-8 that is written beside its place; leaving the block without an error puts it there.

    Its mode is 0600, as it has faces and ids in it.

    Args:
        path: Its place; see :func:`check_output`, also for ``sources`` and what is raised.
        sources: What must be kept.
        newline: As for :func:`open`.
        errors: As for :func:`open`.

    Attributes:
        path: Its place.
        file: The file, to be written into.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sources: Iterable[str | os.PathLike[str]] = (),
        newline: str | None = None,
        errors: str = "strict",
    ) -> None:
        self.path = Path(path)
        self._sources = tuple(sources)
        check_output(path, sources=self._sources)
        try:
            fd, self._beside = tempfile.mkstemp(prefix=".face_async-", suffix=".part", dir=self.path.parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        self.file = open(fd, "w", encoding="utf-8", newline=newline, errors=errors)  # noqa: PTH123, SIM115 - closed below

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(keep=kind is None)

    def close(self, *, keep: bool) -> None:
        """Put the file into its place, or drop it; doing so twice is fine.

        Raises:
            OutputError: Something that must be kept is there now.
            OSError: It cannot be written, as the disk is full; what was there is there still.
        """
        if self.file.closed:
            return
        try:
            if keep:
                with self.file:
                    self.file.flush()
                    os.fsync(self.file.fileno())
                check_output(self.path, sources=self._sources)
                os.replace(self._beside, self.path)  # noqa: PTH105 - of one name by another
            else:
                with contextlib.suppress(OSError):  # what is dropped need not fit the disk
                    self.file.close()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._beside)  # noqa: PTH108 - as above
