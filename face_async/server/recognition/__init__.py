"""Recognizers: what finds the faces in a picture, and tells how alike two faces are.

============= ======================== =============================================================================
name          needs                    what it does
============= ======================== =============================================================================
faces         extra ``recognition``    real recognition: finds, tells apart and describes faces (:mod:`.faces`)
fingerprint   extra ``server``         none: a picture is its own face; fast and deterministic, for tests and load
============= ======================== =============================================================================

``auto`` is faces where its extra is installed, and fingerprint elsewhere. ``dlib``, the real one of before, is an alias
of faces; but the faces that it stored are another recognizer's, as their embeddings mean nothing to this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from face_async.errors import quoted
from face_async.images.decoding import MAX_PIXELS
from face_async.limits import ALMOST_THE_SAME as DUPLICATE_SIMILARITY
from face_async.limits import SAME_PERSON as MATCH_SIMILARITY
from face_async.server.recognition import networks
from face_async.server.recognition.base import Face, Recognizer
from face_async.server.recognition.faces import FacesRecognizer
from face_async.server.recognition.fingerprint import FingerprintRecognizer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DUPLICATE_SIMILARITY",
    "MATCH_SIMILARITY",
    "MAX_PIXELS",
    "NAMES",
    "Face",
    "Recognizer",
    "recognizer",
    "what_to_do_about",
]

NAMES = ("faces", "fingerprint")
"""The recognizers that there are."""

_ALIASES = {"dlib": FacesRecognizer.name}


def recognizer(name: str = "auto") -> Recognizer:
    """Return a recognizer; it may be shared, and should be closed.

    Args:
        name: ``"faces"``, ``"fingerprint"`` or ``"auto"``; ``"dlib"`` is faces, too.

    Raises:
        ValueError: There is none of this name.
        ImportError: It is ``"faces"``, and its extra is not installed.
    """
    name = _ALIASES.get(name, name)
    if name not in {"auto", *NAMES}:
        raise ValueError(f"recognizer must be 'auto', 'faces' or 'fingerprint', not {quoted(name)}")
    if name == "fingerprint" or (name == "auto" and not networks.is_installed()):
        return FingerprintRecognizer()
    if not networks.is_installed():
        raise ImportError(
            f"{networks.RUNTIME} is not installed; pip install 'face_async[recognition]'", name=networks.RUNTIME
        )
    return FacesRecognizer()


def what_to_do_about(others: Iterable[str]) -> str:
    """Return advice to somebody whose database has faces that other recognizers stored."""
    known = sorted(set(others).intersection(NAMES))
    return "add their pictures again, to a new database" + "".join(f", or use recognizer {name}" for name in known)
