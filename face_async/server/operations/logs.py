"""How the server's log is written: text, or a line of JSON for each entry."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Formats each entry as one line of JSON: those of calls have their fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        call: dict[str, object] = getattr(record, "call", {})
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **call,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logs(level: str, *, json_lines: bool) -> None:
    """Write this process's log to standard error.

    Args:
        level: From where on the server's own entries are written: ``"debug"``, ``"info"`` (every call), ``"warning"``
            (refused signatures and pictures that were not fetched, each kind once a minute) or ``"error"``.
        json_lines: Whether each entry is a line of JSON.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if json_lines else logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("face_async").setLevel(level.upper())
