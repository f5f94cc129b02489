"""Resumable enrollment of whole folders and manifests: a run may be killed at any time, and begun again.

::

    async with ingest(session, "people/", journal="enroll.journal", group_ids=["staff"]) as run:
        summary = await run.finish()

The files, each importing from those above it::

    manifest    rows of folders, CSV and JSON Lines
    _schema     the journal's file: tables, owner, lock
    journal     units of work and their states
    shards      dividing a run, and merging its journals
    report      the summary and the file of failures
    _service    calls that wait for a service that is away
    _pictures   reading and hashing
    _work       one person: create, send, settle
    run         the run
    audit       the journal against the server
"""

from face_async.ingest.audit import Difference, Verification, verify
from face_async.ingest.journal import JournalError, State, Unit
from face_async.ingest.report import Phase, Summary, write_failures
from face_async.ingest.run import Ingestion, ingest, retry_failed
from face_async.ingest.shards import Shard, merge_journals
from face_async.ingest.sources import BadRow, Row, Source, read_source

__all__ = [
    "BadRow",
    "Difference",
    "Ingestion",
    "JournalError",
    "Phase",
    "Row",
    "Shard",
    "Source",
    "State",
    "Summary",
    "Unit",
    "Verification",
    "ingest",
    "merge_journals",
    "read_source",
    "retry_failed",
    "verify",
    "write_failures",
]
