"""Resumable enrollment of whole folders and manifests: a run may be killed at any time, and begun again.

::

    async with ingest(session, "people/", journal="enroll.journal", group_ids=["staff"]) as run:
        summary = await run.finish()
"""

from face_async.ingest.audit import Difference, Verification
from face_async.ingest.audit import verify_enrollment as verify
from face_async.ingest.journal import State, Unit
from face_async.ingest.objects import ObjectStorageError
from face_async.ingest.output_file import OutputError
from face_async.ingest.parts import Shard, merge_journals, read_units, rebuild_journal
from face_async.ingest.report import Phase, Summary, write_failures
from face_async.ingest.rows import BadRow, Row
from face_async.ingest.run import Ingestion, RunOptions, ingest, retry_failed
from face_async.ingest.schema import JournalError, JournalInUseError
from face_async.ingest.sources import Source, read_source

__all__ = [
    "BadRow",
    "Difference",
    "Ingestion",
    "JournalError",
    "JournalInUseError",
    "ObjectStorageError",
    "OutputError",
    "Phase",
    "Row",
    "RunOptions",
    "Shard",
    "Source",
    "State",
    "Summary",
    "Unit",
    "Verification",
    "ingest",
    "merge_journals",
    "read_source",
    "read_units",
    "rebuild_journal",
    "retry_failed",
    "verify",
    "write_failures",
]
