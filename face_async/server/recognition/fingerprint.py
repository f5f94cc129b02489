"""Recognition without models: a picture is its own face, and pictures that look alike are alike.

A picture becomes the low frequencies of its light and of its colors, which recompressing and rescaling hardly touch.
Measured as distances of unit vectors: the same picture recompressed (JPEG, quality 50) or rescaled to between half
and one and a half times its size at most 0.04; two shots of a drawn person (:mod:`face_async.portraits`) 0.05 to
0.26; two drawn persons 0.18 to 1.4, one pair in a hundred below 0.3; unrelated structures 1.1 and more. Fine noise
alone is no structure: it does not survive compression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from face_async.errors import ReturnCode
from face_async.server.recognition.base import MOST_FACES, Face, decode_or_refuse, distances
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from face_async.images.decoding import DecodedPicture

_GRID = 32  # cells each way
_LIGHT, _COLOR = 10, 4  # frequencies each way that are kept; the eye, and so JPEG, sees color more coarsely
_COLOR_WEIGHT = 0.7
_LEAST_CONTRAST = 1.0  # standard deviation of the cells, in steps of 0 to 255

_WAVES = np.cos(np.pi / _GRID * np.outer(np.arange(_LIGHT), np.arange(_GRID) + 0.5))  # of a cosine transform
_STRESS = np.sqrt(1.0 + np.add.outer(np.arange(_LIGHT), np.arange(_LIGHT)))  # details tell more than their size
_STRESS[0, 0] = 0.0  # how bright or colorful the whole picture is belongs to the lamp


class FingerprintRecognizer:
    """Takes every picture with visible structure for one face, whose box is the whole picture.

    Deterministic, and about 2 ms a picture. Nothing but the box is measured.
    """

    name = "fingerprint"
    is_euclidean = True

    def find_face(self, picture: bytes) -> Face:
        """Return the picture as a face.

        Raises:
            Refusal: -1101 when the picture is uniform, or as
                :func:`~face_async.server.recognition.base.decode_or_refuse`.
        """
        return self.find_decoded_face(picture)[0]

    def find_decoded_face(self, picture: bytes) -> tuple[Face, DecodedPicture]:
        """Return what :meth:`find_face` returns, and the decoded picture."""
        decoded = _decoded(picture)
        face = _face(decoded)
        if face is None:
            raise Refusal(ReturnCode.SDK_IMAGE_FACEDETECT_FAILED)
        return face, decoded

    def find_faces(self, picture: bytes, *, most: int = MOST_FACES) -> list[Face]:
        """Return the picture as its only face; [] when it is uniform, or ``most`` is 0.

        Raises:
            Refusal: As :func:`~face_async.server.recognition.base.decode_or_refuse`.
        """
        face = _face(_decoded(picture))
        return [] if face is None else [face][:most]

    def similarities(self, probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return 100 at distance 0, 99 up to where the same picture may be, 75 up to where the same person may be."""
        return np.interp(distances(probe, gallery), (0.0, 0.04, 0.3, 1.0), (100.0, 99.0, 75.0, 0.0))

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _decoded(picture: bytes) -> DecodedPicture:
    return decode_or_refuse(picture, longest_side=8 * _GRID)


def _face(decoded: DecodedPicture) -> Face | None:
    # Bilinear resizing weighs all pixels of a cell and some of its neighbors, so borders of cells do not matter.
    cells = np.asarray(decoded.image.resize((_GRID, _GRID), Image.Resampling.BILINEAR), np.float64)
    if cells.std(axis=(0, 1)).max() < _LEAST_CONTRAST:
        return None
    return Face(0, 0, float(decoded.width), float(decoded.height), embedding=_embedding(cells))


def _embedding(cells: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    # Logarithms turn the factors that lamps are into summands, which all end up in the frequency that is left out.
    red, green, blue = np.moveaxis(np.log(cells + 16.0), 2, 0)
    light = _frequencies(red + green + blue, _LIGHT) / 3
    colors = [_COLOR_WEIGHT * _frequencies(color - green, _COLOR) for color in (red, blue)]
    whole = np.concatenate([light, *colors])
    return np.asarray(whole / np.linalg.norm(whole), np.float32)


def _frequencies(plane: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    waves = _WAVES[:count]
    return ((waves @ plane @ waves.T) * _STRESS[:count, :count]).ravel()
