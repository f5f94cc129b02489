"""The names of databases: paths and URLs."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

# A password ends at the last @ before the options. If it has a question mark itself, it ends where libpq takes it to
# end; or, if it has a slash as well, at the last @ of all, since no option begins behind its question mark.
_PASSWORD = re.compile(r"//([^:@/?]*):(?:[^?]*|[^@/]*|[^?]*\?(?![a-z_]+=).*)@")

_SCHEMES = ("postgresql://", "postgres://")


def is_postgres_url(database: str | os.PathLike[str]) -> bool:
    """Return whether a database is a PostgreSQL one, named by a URL, and not a file."""
    return os.fspath(database).startswith(_SCHEMES)


def without_password(database: str) -> str:
    """Return the name of a database as it may be shown."""
    if not is_postgres_url(database):
        return database
    shown = _PASSWORD.sub(r"//\1@", database, count=1)
    # With what follows a bare & in it, which is no option.
    return re.sub(r"(?<=[?&])password=[^&]*(?:&[^&=]*(?![^&]))*&?", "", shown)


def quotes_password(message: str, database: str) -> bool:
    """Return whether an error quotes a part of a database's name that :func:`without_password` does not show."""
    shown = without_password(database)
    names = [(database, shown), (unquote(database), unquote(shown))]
    parts = re.findall(r"[\"'](.+?)[\"']", message)
    return any(part in whole and part not in rest for part in parts for whole, rest in names)
