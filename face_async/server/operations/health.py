"""Whether the server does its work: its storage can be written, its recognizer is loaded."""

from __future__ import annotations

import contextlib
import io
import time
from typing import TYPE_CHECKING

from PIL import Image

from face_async.errors import quoted
from face_async.server.refusal import Refusal
from face_async.server.storage.failures import FailureLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from face_async.server.recognition import Recognizer

_GOOD_SECONDS = 2.0  # for which a write tells of the next one, too: anybody may ask for the health
_SIDE = 120  # pixels of a picture that recognizers look at
OK, FAILED = "ok", "failed"


class Health:
    """The health of one application.

    Args:
        require_writable: Writes to the storage; raises when that fails.
        recognizer: The recognizer, which is loaded by the first check.
    """

    def __init__(self, require_writable: Callable[[], object], recognizer: Recognizer) -> None:
        self._require_writable = require_writable
        self._recognizer = recognizer
        self._is_loaded = False
        self._is_writable = False
        self._good_until = 0.0
        self._failures = FailureLog()

    def check(self) -> dict[str, str]:
        """Return the state of each part, ``"ok"`` or ``"failed"``; the log has the reason.

        It blocks, so call it in a worker thread; one at a time.
        """
        now = time.monotonic()
        if now >= self._good_until:
            self._is_writable = self._succeeds("storage", self._require_writable)
            self._good_until = time.monotonic() + _GOOD_SECONDS
        self._is_loaded = self._is_loaded or self._succeeds("recognizer", self._load)
        states = {"storage": self._is_writable, "recognizer": self._is_loaded}
        return {part: OK if good else FAILED for part, good in states.items()}

    def _load(self) -> None:
        picture = io.BytesIO()
        Image.new("RGB", (_SIDE, _SIDE)).save(picture, "PNG")
        with contextlib.suppress(Refusal):  # then it has looked at the picture
            self._recognizer.find_face(picture.getvalue())

    def _succeeds(self, part: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            self._failures.log(f"{part}: {error}", f"not ready: the {part} failed: {quoted(error)}")
            return False
        return True
