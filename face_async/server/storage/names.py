"""The names of databases: paths and URLs."""

from __future__ import annotations

import os
import re

_SCHEMES = ("postgresql://", "postgres://")


def is_postgres_url(database: str | os.PathLike[str]) -> bool:
    """Return whether a database is a PostgreSQL one, named by a URL, and not a file."""
    return os.fspath(database).startswith(_SCHEMES)


def without_password(database: str) -> str:
    """Return the name of a database as it may be shown."""
    if not is_postgres_url(database):
        return database
    shown = re.sub(r"//([^:@/?]*):[^?]*@", r"//\1@", database)
    return re.sub(r"(?<=[?&])password=[^&]*&?", "", shown)
