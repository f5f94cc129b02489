"""The checks of the embedded local server: its recognizer, its database, and a call to it."""

from __future__ import annotations

import os
import stat
import time
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING

from face_async.cli.doctor.checks import CheckVerdict, ok, warning, wrong
from face_async.cli.doctor.checks_service import check_limits
from face_async.cli.exits import Exit, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from face_async.cli.doctor.checks import CheckResult
    from face_async.cli.options import ServiceChoice
    from face_async.server import Store

_READ_WHOLE = 500_000_000  # bytes of a database; the larger ones are not read as a whole, which takes seconds
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


async def check_local(service: ServiceChoice, db: Path, groups: int) -> AsyncIterator[CheckResult]:
    """Check the embedded local server, up to the first failure; its database is not created if it is missing."""
    try:
        import_module("face_async.local")  # which needs the extra
    except ImportError as error:
        yield wrong("server", one_line(error), "or configure a service", Exit.USAGE)
        return
    recognizer = service.recognizer.value
    usable = _check_recognizer(recognizer)
    yield usable
    if usable.verdict is CheckVerdict.WRONG:
        return
    for result in _check_database(db, recognizer):
        yield result
        if result.verdict is CheckVerdict.WRONG:
            return
    if db.exists():  # noqa: ASYNC240 - it was opened a moment ago
        async with service.open() as session:
            async for result in check_limits(session, groups):
                yield result


def _check_recognizer(name: str) -> CheckResult:
    from face_async.portraits import draw_portrait  # noqa: PLC0415 - as above
    from face_async.server import recognizer  # noqa: PLC0415
    from face_async.server.refusal import Refusal  # noqa: PLC0415

    try:
        with closing(recognizer(name)) as tried:
            portrait = draw_portrait(0)
            tried.find_face(portrait)  # which may load models
            started = time.perf_counter()
            tried.find_face(portrait)
            milliseconds = 1_000 * (time.perf_counter() - started)
    except (ImportError, Refusal, OSError, RuntimeError) as error:
        return wrong("recognizer", str(error), "install 'face_async[recognition]' again", Exit.USAGE)
    if name == "auto" and tried.name == "fingerprint":
        return warning(
            "recognizer",
            "fingerprint, which compares whole pictures and does not recognize faces",
            "install 'face_async[recognition]' for real recognition",
        )
    return ok("recognizer", f"{tried.name} finds the face in a drawn picture, in {milliseconds:.0f} ms")


def _damage(store: Store) -> str:
    """Return the first thing that is wrong with the structure of a database file, "" if nothing is."""
    from face_async.server import StoreError  # noqa: PLC0415 - as above

    try:
        with store.reading() as db:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except StoreError as error:
        return str(error)
    return "" if found == "ok" else " ".join(str(found).split())


def _check_database(db: Path, recognizer: str) -> Iterator[CheckResult]:
    from face_async.server import Store, StoreError  # noqa: PLC0415 - as above
    from face_async.server import recognizer as make_recognizer  # noqa: PLC0415
    from face_async.server.recognition import what_to_do_about  # noqa: PLC0415
    from face_async.server.storage.sqlite.schema import MIGRATIONS  # noqa: PLC0415

    if not db.exists():
        if os.access(db.parent, os.W_OK):
            yield ok("database", f"{db} is not there yet; the first command creates it")
        else:
            yield wrong("database", f"{db} is not there, and cannot be created", "name another with --db", Exit.USAGE)
        return
    status = db.stat()
    try:
        with Store(db) as store:
            damage = _damage(store) if status.st_size <= _READ_WHOLE else ""
            counts = {} if damage else store.count_faces()
    except StoreError as error:
        yield wrong("database", str(error), "name another with --db, or restore a backup", Exit.USAGE)
        return
    if damage:
        mend = "stop what uses it, and restore a backup (face-async backup-db --help)"
        yield wrong("database", f"{db} is damaged: {damage}", mend, Exit.USAGE)
        return
    size, faces = f"{status.st_size / 1e6:,.1f} MB", f"{sum(counts.values()):,} faces"
    yield ok("database", f"{db}, schema {MIGRATIONS.version}, {size}, {faces}")
    if status.st_mode & _OTHERS:
        yield warning("database", "other users of this machine may open it", f"chmod 600 {db}")
    with closing(make_recognizer(recognizer)) as chosen:
        mine = chosen.name
    strange = {name: count for name, count in counts.items() if name != mine}
    if strange:
        which = ", ".join(f"{count:,} by {name}" for name, count in strange.items())
        yield warning("database", f"{mine} cannot compare the faces that were added {which}", what_to_do_about(strange))
