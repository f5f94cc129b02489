"""Where the pictures to enroll come from: folders, manifests, and rows that a program makes.

A folder has one sub-folder for each person, named by the person's id; every file below it, at any depth, is a picture
of that person. What is hidden, and what systems and programs leave in folders, such as thumbnails, is passed over.

A manifest has one picture a line. Its columns or keys are ``person_id``, one of ``path`` (relative to the manifest's
own folder) and ``url``, and optionally ``group_ids``, ``person_name`` and ``tag``. CSV has a header line with these
names, and separates the groups of a cell by ``|``; JSON Lines has a list of str. Both are UTF-8.

A picture that lies outside of the folder or of the manifest's folder, where its path or a link leads, is a bad row
unless that is allowed. Rows that a program makes itself may name any file, and a :class:`BadRow` among them is noted.

A folder or a manifest may be in object storage, and so may pictures that a manifest or a row names by URL (see
:mod:`face_async.ingest.objects`; extra ``fleet``). They are read here, with the rights of whoever enrolls them, and so
must lie in the source's folder, too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve

from face_async.errors import LimitError, quoted
from face_async.images import is_url
from face_async.images.folders import names_in
from face_async.ingest.enclosure import Enclosure
from face_async.ingest.objects import is_object_url, split_url
from face_async.ingest.objects.listing import walk_objects
from face_async.ingest.rows import BadRow, Row
from face_async.ingest.tables.manifests import is_manifest, read_manifest
from face_async.limits import ServiceLimits, check_group_ids, check_id, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from face_async.ingest.rows import Found

PassOver: TypeAlias = "Callable[[str], object] | None"

Source: TypeAlias = "str | os.PathLike[str] | Iterable[Row | BadRow]"
"""A folder, a manifest, or rows that a program makes itself."""


def read_source(
    source: Source,
    *,
    group_ids: Sequence[str] = (),
    limits: ServiceLimits = ServiceLimits(),
    pass_over: PassOver = None,
    allow_outside: bool = False,
) -> Generator[Row | BadRow]:
    """Yield the rows of a source one by one, whatever their number; folders are walked in the order of names.

    Reading blocks: do it in a worker thread.

    Args:
        source: A folder, a manifest whose name ends in ``.csv``, ``.jsonl`` or ``.ndjson``, or any iterable of rows.
            A folder or a manifest may be named by a URL of object storage.
        group_ids: The groups for rows that name none.
        limits: The limits of ids and texts; a row that breaks them is a bad one.
        pass_over: Called with the path of each file and folder that a system or a program has left in a folder.
        allow_outside: Whether paths and links may lead out of the folder or of the manifest's folder.

    Raises:
        OSError: The folder or the manifest cannot be read.
        TypeError: An iterable holds something else than rows.
        ValueError: The path is neither a folder nor such a manifest, the folder has files and no sub-folders, the
            manifest's header is wrong, or ``group_ids`` has an id that no group can have.
    """
    if group_ids:
        check_group_ids(group_ids, limits)
    home = None if allow_outside or not isinstance(source, str | os.PathLike) else _home(os.fspath(source))
    enclosure = None if home is None else Enclosure(home)
    yield from judged_rows(_open(source, pass_over, enclosure), group_ids, limits, enclosure)


def judged_rows(
    found: Iterable[Found],
    group_ids: Sequence[str] = (),
    limits: ServiceLimits = ServiceLimits(),
    enclosure: Enclosure | None = None,
) -> Generator[Row | BadRow]:
    """Yield what was found in a source as :func:`read_source` does: rows that can be enrolled, and bad ones.

    ``enclosure`` is where files must lie, None for anywhere.
    """
    for file, line, row in found:
        if isinstance(row, str):
            yield BadRow(_legible(file), line, row)
            continue
        wanted = row if row.group_ids or not group_ids else evolve(row, group_ids=group_ids)
        reason = _complaint(wanted, limits)
        if reason is None and enclosure is not None and not is_url(row.source):
            reason = enclosure.complaint(row.source)
        yield wanted if reason is None else BadRow(_legible(file), line, reason)


def _home(source: str) -> str:
    """Return the folder of a source that is a folder or a manifest."""
    if is_object_url(source):
        return os.path.dirname(source) if is_manifest(source) else source.rstrip("/")  # noqa: PTH120 - it is a URL
    path = Path(source)
    return str(path if path.is_dir() else path.parent)


def _legible(file: str) -> str:
    """Return a file's name as text: on a disk it need not be any, but in a journal and a table it must."""
    return file.encode(errors="backslashreplace").decode()


def _open(source: Source, pass_over: PassOver, enclosure: Enclosure | None) -> Iterator[Found]:
    if not isinstance(source, str | os.PathLike):
        return (_found(number, row) for number, row in enumerate(source, 1))
    name = os.fspath(source)
    if is_object_url(name):
        return read_manifest(name) if is_manifest(name) else walk_objects(name, pass_over)
    path = Path(os.path.abspath(name))  # noqa: PTH100 - resolve() would follow links, which are the user's own names
    return _walk(path, pass_over, enclosure) if path.is_dir() else read_manifest(str(path))


def _found(number: int, row: object) -> Found:
    if isinstance(row, BadRow):
        return row.file, row.line, row.reason
    if not isinstance(row, Row):
        raise TypeError(f"every row must be a Row, not {type(row).__name__}")
    # The journal knows a picture by its path, which must not depend on where a run is begun.
    if not (is_url(row.source) or is_object_url(row.source)):
        row = evolve(row, source=os.path.abspath(row.source))  # noqa: PTH100 - as below
    return "row", number, row


def _complaint(row: Row, limits: ServiceLimits) -> str | None:
    """Return why a row cannot be enrolled, None if it can, as far as can be told without its picture."""
    try:
        check_id("person_id", row.person_id, limits)
        if row.group_ids:
            check_group_ids(row.group_ids, limits)
        for name, text in (("person_name", row.person_name), ("tag", row.tag)):
            if text is not None:
                check_text(name, text, limits)
        if is_object_url(row.source):
            split_url(row.source)
        row.source.encode()
    except UnicodeEncodeError:
        return "the picture's name is not UTF-8; rename the file"
    except (ValueError, LimitError) as error:
        return str(error)
    return "the picture's name has a NUL in it" if "\0" in row.source else None


# Folders


def _walk(folder: Path, pass_over: PassOver, enclosure: Enclosure | None) -> Iterator[Found]:
    names = names_in(folder, pass_over)
    if names and not any((folder / name).is_dir() for name in names):
        raise ValueError(
            f"{quoted(str(folder))} has {len(names):,} files, but no sub-folders: put each person's pictures into a "
            "sub-folder named by the person's id, or list them in a manifest; pictures of one person are enrolled by "
            "face-async enroll PICTURE... --person ID"
        )
    for name in names:
        person = folder / name
        if not person.is_dir():
            yield (
                str(person),
                0,
                "it is in no person's folder; move it to the sub-folder named by the person's id",
            )
        elif enclosure is not None and (reason := enclosure.complaint(str(person))):
            yield str(person), 0, reason
        else:
            yield from _pictures(name, person, pass_over)


def _pictures(person_id: str, folder: Path, pass_over: PassOver) -> Iterator[Found]:
    try:
        names = names_in(folder, pass_over)
    except OSError as error:
        yield str(folder), 0, f"the folder cannot be read: {error.strerror}"
        return
    for name in names:
        path = folder / name
        if not path.is_dir():
            yield str(path), 0, Row(person_id, str(path))
        elif path.is_symlink():
            yield str(path), 0, "it is a link to a folder, which may lead in a circle; enroll that folder itself"
        else:
            yield from _pictures(person_id, path, pass_over)
