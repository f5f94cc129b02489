"""Sources in Parquet, divided into parts column by column: millions of rows without a Python object for each.

A file, or a folder of files, with the columns of a manifest: ``person_id``, ``path`` (relative to the folder of the
files) or ``url`` or both, and optionally ``group_ids`` (a list, or a string with ``|`` between the groups),
``person_name`` and ``tag``. The parts are streams in Arrow's IPC format.
"""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_async import ImageUrl
from face_async.ingest import BadRow, Row
from face_async.ingest.enclosure import Enclosure
from face_async.ingest.objects import is_object_url, open_object, split_url
from face_async.ingest.objects.listing import object_names
from face_async.ingest.schema import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

SUFFIX = ".parquet"
_FIRST_OBJECTS = 1_000
_COLUMNS = ("person_id", "path", "url", "group_ids", "person_name", "tag")
_COMPLAINT = "the row must have a person_id, and either a path or a url"
_ROWS_AT_ONCE = 32_768
_ROWS_IN_MEMORY = 200_000


def parquet_files(source: object) -> list[str]:
    """Return the files of a source in Parquet, in the order of their names; none if it is another kind of source.

    Raises:
        ObjectStorageError: It is in object storage that cannot be used.
    """
    if not isinstance(source, str | os.PathLike):
        return []
    if is_object_url(os.fspath(source)):
        return _parquet_objects(os.fspath(source))
    path = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would follow links, which are the user's own names
    if path.is_dir():
        return sorted(map(str, path.glob(f"*{SUFFIX}")))
    return [str(path)] if path.suffix.lower() == SUFFIX else []


def _parquet_objects(url: str) -> list[str]:
    if url.lower().endswith(SUFFIX):
        return [url]
    names = object_names(url)
    first = list(islice(names, _FIRST_OBJECTS))  # which tell: a prefix may have millions of pictures
    if not any(map(_is_table, first)):
        return []
    return [f"{url.rstrip('/')}/{name}" for name in sorted(filter(_is_table, chain(first, names)))]


def _is_table(name: str) -> bool:
    return name.lower().endswith(SUFFIX) and "/" not in name


def divide(
    files: Sequence[str],
    folder: Path,
    shards: int,
    part_of: Callable[[str, int], int],
    note_bad: Callable[[BadRow], object],
) -> int:
    """Write the rows of files into a stream for each part; return how many rows are pictures, and note the others.

    Raises:
        ModuleNotFoundError: pyarrow is missing (extra ``fleet``).
        ValueError: A file has other columns.
    """
    pa: Any = import_module("pyarrow")  # it ships no types
    compute: Any = import_module("pyarrow.compute")
    rows = 0
    with _Streams(pa, folder) as streams:
        for file in files:
            read = 0
            for batch in _batches(pa, file):
                are_pictures = _are_pictures(compute, batch)
                for index in compute.indices_nonzero(compute.invert(are_pictures)).to_pylist():
                    note_bad(BadRow(file, read + index + 1, _COMPLAINT))
                read += batch.num_rows
                good = batch.filter(are_pictures)
                rows += good.num_rows
                if good.num_rows:
                    streams.add(*_sorted_by_part(pa, compute, good, shards, part_of))
    return rows


def rows_in(stream: Path, home: str, group_ids: Sequence[str], *, allow_outside: bool) -> Generator[Row]:
    """Yield the rows of a part's stream.

    Args:
        stream: The stream's file.
        home: What paths are relative to; a folder, or a URL of object storage.
        group_ids: The groups for rows that name none.
        allow_outside: Whether paths and links may lead out of that folder.

    Raises:
        ValueError: A path or a link leads out of it, or a URL is none.
    """
    pa: Any = import_module("pyarrow")
    enclosure = None if allow_outside else Enclosure(home)
    with pa.OSFile(os.fspath(stream)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            for row in batch.to_pylist():
                source = row["url"] or os.path.join(home, row["path"])  # noqa: PTH118 - for each of millions
                _check_place(source, enclosure, is_url=row["url"] is not None)
                yield Row(row["person_id"], source, row["group_ids"] or group_ids, row["person_name"], row["tag"])


def _check_place(source: str, enclosure: Enclosure | None, *, is_url: bool) -> None:
    if is_object_url(source):
        split_url(source)
    elif is_url:
        ImageUrl(source)
        return
    if enclosure is not None and (reason := enclosure.complaint(source)) is not None:
        raise ValueError(f"{shown(source)}: {reason}")


class _Streams:
    """The streams of all parts; rows wait in memory until there are enough for all of them to be written at once."""

    def __init__(self, pa: Any, folder: Path) -> None:
        self._pa = pa
        self._folder = folder
        self._waiting: dict[int, list[Any]] = {}
        self._rows = 0
        self._writers: dict[int, Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Streams:  # noqa: PYI034 - a private class
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._write()

    def add(self, batch: Any, ranks: Sequence[int]) -> None:
        """Take a batch whose rows are sorted by the numbers of their parts."""
        numpy: Any = import_module("numpy")
        cuts = [0, *(numpy.flatnonzero(numpy.diff(ranks)) + 1).tolist(), batch.num_rows]
        for begin, end in pairwise(cuts):
            self._waiting.setdefault(int(ranks[begin]), []).append(batch.slice(begin, end - begin))
        self._rows += batch.num_rows
        if self._rows >= _ROWS_IN_MEMORY:
            self._write()

    def _write(self) -> None:
        for rank, batches in self._waiting.items():
            table = self._pa.Table.from_batches(batches).combine_chunks()
            if rank not in self._writers:
                path = self._folder / f"{rank:05}.arrows"
                writer = self._pa.ipc.new_stream(os.fspath(path), table.schema)
                self._writers[rank] = self._stack.enter_context(writer)
            self._writers[rank].write_table(table)
        self._waiting.clear()
        self._rows = 0


def _batches(pa: Any, file: str) -> Generator[Any]:
    """Yield the batches of a file, with all columns that a manifest may have, in one order and of one type."""
    compute: Any = import_module("pyarrow.compute")
    opened = open_object(file) if is_object_url(file) else file
    with import_module("pyarrow.parquet").ParquetFile(opened) as parquet:
        names = parquet.schema_arrow.names
        unknown = [name for name in names if name not in _COLUMNS]
        if unknown or "person_id" not in names or not {"path", "url"} & set(names):
            raise ValueError(
                f"{file} must have the columns person_id and path or url, and may have {', '.join(_COLUMNS[3:])}; "
                f"it has {', '.join(names) or 'none'}"
            )
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, use_threads=False):
            columns = [
                _column(pa, compute, batch, name, pa.list_(pa.string()) if name == "group_ids" else pa.string())
                for name in _COLUMNS
            ]
            yield pa.RecordBatch.from_arrays(columns, names=list(_COLUMNS))


def _column(pa: Any, compute: Any, batch: Any, name: str, kind: Any) -> Any:
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, kind)
    column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if name == "group_ids" and not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column = compute.split_pattern(column.cast(pa.string()), "|")
    return column.cast(kind)


def _are_pictures(compute: Any, batch: Any) -> Any:
    """Return of each row whether it has a person, and either a path or a URL."""
    person_id, path, url = (batch.column(name) for name in ("person_id", "path", "url"))
    one_source = compute.xor(compute.is_valid(path), compute.is_valid(url))
    return compute.and_(compute.is_valid(person_id), one_source)


def _sorted_by_part(pa: Any, compute: Any, batch: Any, shards: int, part_of: Callable[[str, int], int]) -> Any:
    """Return a batch sorted by the numbers of its rows' parts, and those numbers; each person is hashed once."""
    persons = batch.column("person_id").dictionary_encode()
    numbers = pa.array([part_of(person, shards) for person in persons.dictionary.to_pylist()], pa.int32())
    ranks = numbers.take(persons.indices)
    order = compute.sort_indices(ranks)
    return batch.take(order), ranks.take(order).to_numpy()
