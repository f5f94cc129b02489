"""Recognizers: what finds the face in a picture, and tells how alike two faces are.

============= ======================== =============================================================================
name          needs                    what it does
============= ======================== =============================================================================
dlib          extra ``recognition``    real recognition: HOG detection, landmarks, 128 numbers from a residual network
fingerprint   extra ``server``         none: a picture is its own face; fast and deterministic, for tests and load
============= ======================== =============================================================================

``auto`` is dlib where it is installed, and fingerprint elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from face_async.server.recognition import dlib_network as _dlib
from face_async.server.recognition import fingerprint as _fingerprint
from face_async.server.recognition.face import MAX_PIXELS, Face

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["DUPLICATE_SIMILARITY", "MATCH_SIMILARITY", "MAX_PIXELS", "Face", "Recognizer", "recognizer"]

DUPLICATE_SIMILARITY = 99.0
"""Faces at least this similar are almost the same face (code -1312)."""

MATCH_SIMILARITY = 75.0
"""Faces at least this similar are about the same person (Spec: 2.13)."""


class Recognizer(Protocol):
    """What the server asks to look at pictures; its methods may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What is stored beside embeddings, since those of different recognizers cannot be compared."""
        ...

    @property
    def is_euclidean(self) -> bool:
        """Whether similarity depends on the embeddings' Euclidean distance alone, and never grows with it.

        Then a picture is compared with a whole group by one matrix product and a few similarities; otherwise, and for
        recognizers without this attribute, by the similarities to all of the group's faces.
        """
        ...

    def find_face(self, picture: bytes) -> Face:
        """Return the largest face of a picture. It blocks, so call it in a worker thread.

        Raises:
            Refusal: -1300 for no bytes at all, -1400 for anything but JPEG, PNG, BMP and WebP, -1102 for a picture
                that is damaged, incomplete, or larger than :data:`MAX_PIXELS`, -1101 when it shows no face, -1103
                when the face's features cannot be computed.
        """
        ...

    def similarities(self, probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return how alike ``probe`` is to each row of ``gallery``: 0 to 100."""
        ...

    def close(self) -> None:
        """Give back what is held, waiting for pictures under way; a recognizer that is used again opens again."""
        ...


def recognizer(name: str = "auto") -> Recognizer:
    """Return a recognizer; it may be shared, and should be closed.

    Args:
        name: ``"dlib"``, ``"fingerprint"`` or ``"auto"``.

    Raises:
        ValueError: There is none of this name.
        ImportError: It is ``"dlib"``, and dlib or its models are not installed.
    """
    if name not in {"auto", "dlib", "fingerprint"}:
        raise ValueError(f"recognizer must be 'auto', 'dlib' or 'fingerprint', not {name!r}")
    if name == "fingerprint" or (name == "auto" and not _dlib.is_installed()):
        return _fingerprint.FingerprintRecognizer()
    if not _dlib.is_installed():
        raise ImportError("dlib or its models are not installed; pip install 'face_async[recognition]'", name="dlib")
    return _dlib.DlibRecognizer()
