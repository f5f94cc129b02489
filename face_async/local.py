"""A session on the local server, in this process: nothing to configure, nothing to start."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

import httpx

from face_async.server import ServiceLimits, create_app, open_storage
from face_async.session import Credentials, FaceSession, SessionOptions

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator

LOCAL_APPID = "100000"
"""The appid of local sessions, and of a local server that was not given another."""

LOCAL_BUCKET = "local"
"""The bucket that goes with it."""


def random_credentials() -> Credentials:
    """Return random credentials."""
    return Credentials(f"AKID{secrets.token_hex(16)}", secrets.token_hex(16))


@asynccontextmanager
async def local_session(
    path: str | os.PathLike[str] = ":memory:", *, recognizer: str = "auto", **options: Unpack[SessionOptions]
) -> AsyncGenerator[FaceSession]:
    """Return a session on a local server of its own, as an asynchronous context manager.

    Args:
        path: The server's SQLite database, created if it is missing, or the URL of a PostgreSQL one;
            ``":memory:"`` forgets everything at the end.
        recognizer: ``"faces"`` (real), ``"fingerprint"`` (no models, for tests) or ``"auto"`` (faces if installed).
        **options: The keyword arguments of :class:`FaceSession`, but ``base_url`` and ``transport``.

    Raises:
        TypeError: ``base_url`` or ``transport`` is given: the session is at a server of its own.
        ValueError: There is no such recognizer.
        StoreError: The database cannot be used (:mod:`face_async.server`).
    """
    if given := options.keys() & {"base_url", "transport"}:
        raise TypeError(f"local_session() takes no {min(given)}: for another server make a FaceSession")
    credentials = random_credentials()
    limits = options.get("limits", ServiceLimits())
    with open_storage(path) as store:
        app = create_app(store, credentials=credentials, recognizer=recognizer, limits=limits)
        options["base_url"] = "http://localhost"
        options["transport"] = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with FaceSession(LOCAL_APPID, LOCAL_BUCKET, credentials, **options) as session:
            yield session
