"""Sources in Parquet, divided into parts column by column: millions of rows without a Python object for each.

A file, or a folder of files, with the columns of a manifest: ``person_id``, ``path`` (relative to the folder of the
files) or ``url`` or both, and optionally ``group_ids`` (a list, or a string with ``|`` between the groups),
``person_name`` and ``tag``. As in CSV, an empty text is none. The parts are streams in Arrow's IPC format; each row
comes with its file and its number there, and is judged by whoever reads the part, as that of any manifest.
"""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_async.ingest.enclosure import Enclosure
from face_async.ingest.objects import is_object_url, open_object
from face_async.ingest.objects.listing import object_names
from face_async.ingest.sources import judged_rows
from face_async.ingest.tables.manifests import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from face_async.ingest import BadRow, Row
    from face_async.ingest.rows import Found

SUFFIX = ".parquet"
_FIRST_OBJECTS = 1_000
_COLUMNS = ("person_id", "path", "url", "group_ids", "person_name", "tag")
_PLACE = ("file", "line")  # what a stream has beside them
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


def divide(files: Sequence[str], folder: Path, shards: int, part_of: Callable[[str, int], int]) -> int:
    """Write the rows of files, which are not judged yet, into a stream for each part; return how many there are.

    Raises:
        ModuleNotFoundError: pyarrow is missing (extra ``fleet``).
        ValueError: A file has other columns.
    """
    pa: Any = import_module("pyarrow")  # it ships no types
    compute: Any = import_module("pyarrow.compute")
    rows = 0
    with _Streams(pa, folder) as streams:
        for batch in chain.from_iterable(_batches(pa, compute, file) for file in files):
            rows += batch.num_rows
            streams.add(*_sorted_by_part(pa, compute, batch, shards, part_of))
    return rows


def rows_in(stream: Path, home: str, group_ids: Sequence[str], *, allow_outside: bool) -> Generator[Row | BadRow]:
    """Yield the rows of a part's stream; what is no picture of a person, with its place in the source.

    Args:
        stream: The stream's file.
        home: What paths are relative to; a folder, or a URL of object storage.
        group_ids: The groups for rows that name none.
        allow_outside: Whether paths and links may lead out of that folder.
    """
    enclosure = None if allow_outside else Enclosure(home)
    return judged_rows(_found_in(stream, home), group_ids, enclosure=enclosure)


def _found_in(stream: Path, home: str) -> Generator[Found]:
    pa: Any = import_module("pyarrow")
    with pa.OSFile(os.fspath(stream)) as opened, pa.ipc.open_stream(opened) as reader:
        for batch in reader:
            for row in batch.to_pylist():
                yield _text(row["file"]), row["line"], _row(row, home)


def _row(columns: Mapping[str, Any], home: str) -> Row | str:
    """Return a row, or what is wrong with it."""
    try:
        return row_of({name: _value(columns[name]) for name in _COLUMNS if columns[name]}, home)
    except ValueError as error:
        return str(error)


def _value(found: Any) -> object:
    if isinstance(found, list):
        return [_value(one) for one in found]  # pyright: ignore[reportUnknownVariableType]  # of whatever lists hold
    return None if found is None else _text(found)


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")  # what is not UTF-8 is wrong with its row alone


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


def _batches(pa: Any, compute: Any, file: str) -> Generator[Any]:
    """Yield the batches of a file, with all columns that a manifest may have, in one order and of one type.

    Texts are bytes: a file may have some that are not UTF-8.
    """
    numpy: Any = import_module("numpy")
    place, read = pa.array([os.fsencode(file)]), 0
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
            columns = [_column(pa, compute, batch, name) for name in _COLUMNS]
            files = pa.DictionaryArray.from_arrays(numpy.zeros(batch.num_rows, numpy.int32), place)
            lines = pa.array(numpy.arange(read, read + batch.num_rows) + 1)
            read += batch.num_rows
            yield pa.RecordBatch.from_arrays([*columns, files, lines], names=[*_COLUMNS, *_PLACE])


def _column(pa: Any, compute: Any, batch: Any, name: str) -> Any:
    text, kind = (pa.list_(one) if name == "group_ids" else one for one in (pa.string(), pa.binary()))
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, kind)
    column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if name == "group_ids" and not _is_list(pa, column.type):
        texts = _as_bytes(pa, column, pa.string(), pa.binary())
        # An empty text is no group, while an empty one in a list is a wrong one.
        column = compute.split_pattern(compute.if_else(compute.equal(texts, b""), None, texts), "|")
    return _as_bytes(pa, column, text, kind)


def _as_bytes(pa: Any, column: Any, text: Any, kind: Any) -> Any:
    """Return a column of texts, or of lists of them, as bytes; numbers become texts before."""
    of = column.type.value_type if _is_list(pa, column.type) else column.type
    numbers = pa.types.is_primitive(of) or pa.types.is_decimal(of)
    return (column.cast(text) if numbers else column).cast(kind)


def _is_list(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _sorted_by_part(pa: Any, compute: Any, batch: Any, shards: int, part_of: Callable[[str, int], int]) -> Any:
    """Return a batch sorted by the numbers of its rows' parts, and those numbers; each person is hashed once."""
    persons = compute.fill_null(batch.column("person_id"), b"").dictionary_encode()
    numbers = pa.array([part_of(_text(person), shards) for person in persons.dictionary.to_pylist()], pa.int32())
    ranks = numbers.take(persons.indices)
    order = compute.sort_indices(ranks)
    return batch.take(order), ranks.take(order).to_numpy()
