"""The log of what fails, such as a database: for every request in the same way, until somebody mends it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("face_async.server")

_SECONDS = 60.0


class FailureLog:
    """Logs each kind of failure once a minute, with how many there were since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def report(self, endpoint: str, session_id: str, error: Exception) -> None:
        """Log why a request could not be done, unless the same was logged within the last minute.

        Args:
            endpoint: The specification's name of the endpoint.
            session_id: The request's, which its answer names.
            error: What failed. Its text tells its kind, so it must have no part that is of this request alone.
        """
        self.log(str(error), f"{endpoint}: the database failed: {error} (session {session_id})")

    def log(
        self,
        kind: str,
        text: str,
        log: logging.Logger = logger,
        level: int = logging.ERROR,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Log a failure, unless one of its kind was logged within the last minute.

        Args:
            kind: The failure's kind; there must be few of them.
            text: What is logged.
            log: Where.
            level: How bad it is, as :mod:`logging` has it.
            extra: What the entry has beside its text.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._logged.get(kind, -_SECONDS) < _SECONDS:
                self._unlogged[kind] += 1
                return
            self._logged[kind] = now
            before = self._unlogged.pop(kind, 0)
        more = f"; {before} more requests since this was logged last" if before else ""
        log.log(level, "%s%s", text, more, extra=extra)
