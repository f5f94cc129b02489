"""Threads for work on a store: each kind of work has its own, so that none waits for the threads of another."""

from __future__ import annotations

from face_async.images.threads import Workers

reads = Workers("server.reads", 40)
"""For what is answered within moments."""

writes = Workers("server.writes", 256)
"""For what may wait for the file: those who wait at the same time share a commit."""

rankings = Workers("server.rankings", 16)
"""For comparisons with galleries, which may have to be loaded."""
