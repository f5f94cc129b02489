"""How much may be under way at once."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge


@frozen
class Throttle:
    """Bounds on what a session, with all its copies, has under way.

    Attributes:
        max_concurrency: Calls under way at once, 1 or more, and with them the connections in use. Further calls queue.
    """

    max_concurrency: int = field(default=64, validator=ge(1))
