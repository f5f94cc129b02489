"""The plan of a run: its source, read once and divided into parts."""

from __future__ import annotations

import json
import os
from collections import deque
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Self, TextIO, TypeAlias, cast

import attrs
from attrs import field, frozen

from face_async.errors import quoted
from face_async.fleet.columns import SUFFIX, divide, parquet_files, rows_in
from face_async.fleet.layout import StateError, lines_of, part_name, reporting_damage
from face_async.ingest import BadRow, Row, read_source
from face_async.ingest.objects import is_object_url, split_url
from face_async.ingest.objects.listing import object_names
from face_async.ingest.parts import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from face_async.fleet.layout import RunState
    from face_async.ingest import Source

PLAN = "plan.json"
MOST_SHARDS = 100_000
MOST_SPREAD = 5_000  # as many groups as an appid may have
_VERSION = 1
_ROWS_IN_MEMORY = 100_000
_BAD_ROWS = "bad_rows.jsonl"

Probe: TypeAlias = str | BadRow
"""The path or URL of a picture to identify, or one that is not to be sent, and why."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


@frozen
class Plan:
    """What a run is.

    Attributes:
        kind: ``"enroll"`` or ``"identify"``.
        source: What the source was called; of an identification, what tells its probes from others.
        shards: The number of parts.
        group_ids: The groups for rows that name none, or the groups that are searched.
        rows: All rows of the parts: pictures, but of a source in Parquet also what each part finds to be none.
        bad_rows: Rows of the source that are no picture, and in no part.
        allow_outside: Whether paths and links may lead out of the source's folder.
        spread: Into how many numbered groups the persons of each group are put; 0 for the groups themselves.
        parts: What the parts' rows are below in the state.
        version: The version of the state's format.
    """

    kind: str
    source: str
    shards: int
    group_ids: tuple[str, ...] = field(converter=tuple[str, ...])
    rows: int = 0
    bad_rows: int = 0
    allow_outside: bool = False
    spread: int = 0
    parts: str = "plan"
    version: int = _VERSION

    @property
    def home(self) -> str:
        """The folder that paths of a source in Parquet are relative to."""
        return os.path.dirname(self.source) if self.source.lower().endswith(SUFFIX) else self.source  # noqa: PTH120 - it need not be a path of this machine

    def check_same(self, wanted: Plan) -> None:
        """Check that a run that goes on is the one that was begun.

        Raises:
            StateError: It is another one.
        """
        for name in ("version", "kind", "source", "shards", "group_ids", "allow_outside", "spread"):
            old, new = getattr(self, name), getattr(wanted, name)
            if old != new:
                raise StateError(
                    f"the state is of a run with {name} {quoted(old)}, not {quoted(new)}; "
                    "name another state for it, or for what is found another out"
                )


def read_plan(state: RunState) -> Plan | None:
    """Return the plan of a state, None if it has none yet.

    Raises:
        StateError: It is damaged, or a later version's.
    """
    content = state.read(PLAN)
    if content is None:
        return None
    with reporting_damage(state.location, PLAN):
        return Plan(**json.loads(content))


def planned(state: RunState) -> Plan:
    """Return the plan of a state that must have one.

    Raises:
        StateError: It has none, or one that cannot be read.
    """
    plan = read_plan(state)
    if plan is None:
        raise StateError(f"{state.location} has no plan; the part with rank 0 makes it, or a run of all parts")
    return plan


def plan_enrollment(state: RunState, source: Source, wanted: Plan) -> Plan:
    """Read a source once, divide its rows into parts by their persons, and return the plan. Blocks.

    Args:
        state: Where to publish the parts.
        source: As in :func:`face_async.ingest.ingest`, or Parquet (see :mod:`face_async.fleet.columns`).
        wanted: The plan without its counts.

    Raises:
        OSError, TypeError, ValueError: As :func:`face_async.ingest.read_source`.
        ModuleNotFoundError: The source is in Parquet, and pyarrow is missing (extra ``fleet``).
    """
    files = parquet_files(source)
    with state.writing_parts("plan") as (folder, parts), _BadRowsFile(folder / _BAD_ROWS) as bad:
        if files:
            rows = divide(files, folder, wanted.shards, part_of)
        else:
            found = read_source(source, group_ids=wanted.group_ids, allow_outside=wanted.allow_outside)
            rows = _divide_rows(found, folder, wanted.shards, bad.note)
    return _published(state, attrs.evolve(wanted, rows=rows, bad_rows=bad.count, parts=parts))


def _published(state: RunState, plan: Plan) -> Plan:
    """Publish a plan, and return the one that counts: of several that are made at the same time it is the first."""
    state.publish_once(PLAN, json.dumps(attrs.asdict(plan)).encode())
    return planned(state)


def _divide_rows(
    source: Iterable[Row | BadRow], folder: Path, shards: int, note_bad: Callable[[BadRow], object]
) -> int:
    rows = 0
    with _PartFiles(folder, shards) as parts:
        for row in source:
            if isinstance(row, BadRow):
                note_bad(row)
            else:
                rows += 1
                parts.add(part_of(row.person_id, shards), list(attrs.astuple(row)))
    return rows


def plan_identification(state: RunState, probes: Iterable[Probe], wanted: Plan) -> Plan:
    """Divide the probes of an identification into parts of equal size, and return the plan. Blocks.

    Without a source in ``wanted``, they are what it is called by.
    """
    rows, called = 0, Called()
    with (
        state.writing_parts("plan") as (folder, parts),
        _PartFiles(folder, wanted.shards) as files,
        _BadRowsFile(folder / _BAD_ROWS) as bad,
    ):
        for probe in chain.from_iterable(map(_pictures_of, called.noting(probes))):
            if isinstance(probe, BadRow):
                bad.note(probe)
            else:
                rows += 1
                files.add(rows % wanted.shards, [probe])
    source = wanted.source or str(called)
    return _published(state, attrs.evolve(wanted, source=source, rows=rows, bad_rows=bad.count, parts=parts))


def _pictures_of(probe: Probe) -> Generator[Probe]:
    """Yield a probe, or all below it if it is a prefix in object storage."""
    if isinstance(probe, BadRow):
        yield probe
    elif not is_object_url(probe):
        yield probe if _is_utf8(probe) else BadRow(probe, 0, "the picture's name is not UTF-8; rename the file")
    else:
        split_url(probe)  # what has a secret in it gets into no plan
        names = object_names(probe) if probe.endswith("/") else [""]
        name = None
        for name in names:
            yield probe + name
        if name is None:
            raise ValueError(f"{quoted(probe)} has no pictures in it")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Called:
    """What probes are called together: one by itself, more by their number and a digest, whatever their order."""

    def __init__(self) -> None:
        self._first = ""
        self._count = 0
        self._sum = 0

    def noting(self, probes: Iterable[Probe]) -> Generator[Probe]:
        """Yield probes, and note what they are called."""
        for probe in probes:
            name = probe.file if isinstance(probe, BadRow) else probe
            self._first = self._first or name
            self._count += 1
            self._sum += int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest())
            yield probe

    def __str__(self) -> str:
        return self._first if self._count == 1 else f"probes:{self._count}:{self._sum % 2**128:032x}"


def called(probes: Iterable[Probe]) -> str:
    """Return what probes are called together."""
    names = Called()
    deque(names.noting(probes), maxlen=0)
    return str(names)


def rows_of(state: RunState, rank: int) -> Generator[Row | BadRow]:
    """Yield the rows of a part; bad ones only if the source is in Parquet, all others are in :func:`bad_rows_of`."""
    plan = planned(state)
    stream = part_name(plan.parts, rank, ".arrows")
    if state.exists(stream):
        with state.reading(stream) as path:
            for row in rows_in(path, plan.home, plan.group_ids, allow_outside=plan.allow_outside):
                yield row if isinstance(row, BadRow) else _spread(row, plan.spread)
        return
    for person_id, source, group_ids, person_name, tag in _lines_of(state, plan, rank, 5):
        row = Row(
            cast("str", person_id),
            cast("str", source),
            tuple(cast("list[str]", group_ids)),
            cast("str | None", person_name),
            cast("str | None", tag),
        )
        yield _spread(row, plan.spread)


def _spread(row: Row, spread: int) -> Row:
    """Return a row with the numbered groups for its person, as :class:`~face_async.ShardedGroup` calls them."""
    if not spread:
        return row
    number = part_of(row.person_id, spread)
    return attrs.evolve(row, group_ids=[f"{group_id}-{number:04}" for group_id in row.group_ids])


def bad_rows_of(state: RunState) -> Generator[BadRow]:
    """Yield the rows of the source that are not a picture of a person, and in no part."""
    for file, line, reason in lines_of(state, f"{planned(state).parts}/{_BAD_ROWS}", 3, remove=PLAN):
        yield BadRow(cast("str", file), cast("int", line), cast("str", reason))


def probes_of(state: RunState, rank: int) -> list[str]:
    """Return the probes of a part."""
    return [cast("str", probe) for (probe,) in _lines_of(state, planned(state), rank, 1)]


def _lines_of(state: RunState, plan: Plan, rank: int, values: int) -> Generator[list[object]]:
    """Yield the lines of a part: none if it is without a single person, which has no file."""
    return lines_of(state, part_name(plan.parts, rank, ".jsonl"), values, remove=PLAN)


class _PartFiles:
    """The files of all parts while they are written: rows wait in memory, so that few files are ever open."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._folder = folder
        self._lines: list[list[str]] = [[] for _ in range(shards)]
        self._waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, rank: int, values: Sequence[object]) -> None:
        self._lines[rank].append(_encode(values))
        self._waiting += 1
        if self._waiting >= _ROWS_IN_MEMORY:
            self._write()

    def _write(self) -> None:
        for rank, lines in enumerate(self._lines):
            if lines:
                path = self._folder / os.path.basename(part_name("plan", rank, ".jsonl"))  # noqa: PTH119 - a name alone
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n".join(lines) + "\n")
                lines.clear()
        self._waiting = 0


class _BadRowsFile:
    """The file of the rows that are not a picture, while it is written; there is none without such a row."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def note(self, row: BadRow) -> None:
        self.count += 1
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace")
        self._file.write(_encode(attrs.astuple(row)) + "\n")
