"""What runs in processes of its own: a child finds it by the name of this module, which lies on the tests' path."""

from __future__ import annotations

from functools import partial

import anyio
from doubles import CREDENTIALS
from ingestkit import APPID, BUCKET, RECOGNIZER, finished

from face_async import FaceSession
from face_async.ingest import ingest
from face_async.server import Store, create_app, serve


def client(base_url, people, journal):
    """Enroll."""

    async def run():
        async with FaceSession(APPID, BUCKET, CREDENTIALS, base_url=base_url) as session:
            make = partial(ingest, session, people, journal=journal, group_ids=["staff"], max_at_once=4)
            await finished(make(probe_delay=0.01))

    anyio.run(run)


def server(db, port):
    """Serve."""
    with Store(db) as store:
        serve(create_app(store, credentials=CREDENTIALS, recognizer=RECOGNIZER), port=port)
