"""Maps of the plane, and pictures cut along them."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen
from PIL import Image

Points: TypeAlias = npt.NDArray[np.float64]
"""One point a row: x, y, and perhaps z, in pixels."""


@frozen
class Similarity:
    """Turns, scales and moves: takes a point ``p`` of a cutting, as a complex number, to ``factor * p + offset``.

    Attributes:
        factor: Its size is how many pixels of the picture make one of the cutting, its angle the turn.
        offset: Where the cutting's corner lies in the picture.
    """

    factor: complex
    offset: complex

    @classmethod
    def square(cls, middle: complex, side: float, angle: float, pixels: int) -> Similarity:
        """Return the map of a square cutting of ``pixels`` each way.

        Args:
            middle: Its middle in the picture.
            side: Its side in pixels of the picture.
            angle: How far it is turned, in radians, clockwise above 0.
            pixels: Its side in its own pixels.
        """
        factor = side / pixels * complex(math.cos(angle), math.sin(angle))
        return cls(factor, middle - factor * complex(pixels / 2, pixels / 2))

    @classmethod
    def fit(cls, cutting: Points, picture: Points) -> Similarity:
        """Return the map that takes points of a cutting nearest to those of the picture (least squares)."""
        near, far = _complex(cutting), _complex(picture)
        centered = near - near.mean()
        factor = complex((np.conj(centered) * (far - far.mean())).sum() / (abs(centered) ** 2).sum())
        return cls(factor, complex(far.mean()) - factor * complex(near.mean()))

    def apply(self, points: Points) -> Points:
        """Return points of the cutting as points of the picture; a third dimension is scaled alone."""
        flat = self.factor * _complex(points) + self.offset
        return np.column_stack([flat.real, flat.imag, abs(self.factor) * points[:, 2:]])

    def cut(self, image: Image.Image, pixels: int) -> Image.Image:
        """Return the square cutting of ``pixels`` each way; what lies outside the picture is black."""
        a, b = self.factor, self.offset
        shrink = int(abs(a))
        if shrink >= 2:  # noqa: PLR2004 - bilinear sampling would pass over pixels: average them before
            image, corner = _surroundings(image, self.apply(_corners(pixels)), shrink)
            a, b = a / shrink, (b - corner) / shrink
        matrix = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
        return image.transform((pixels, pixels), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def angle_of(vector: Points) -> float:
    """Return the angle of a vector in radians, clockwise above 0 as a picture's y goes down."""
    return math.atan2(float(vector[1]), float(vector[0]))


def _complex(points: Points) -> npt.NDArray[np.complex128]:
    return np.asarray(points[:, 0] + 1j * points[:, 1], np.complex128)


def _corners(pixels: int) -> Points:
    return np.array([[0, 0], [pixels, 0], [0, pixels], [pixels, pixels]], np.float64)


def _surroundings(image: Image.Image, corners: Points, shrink: int) -> tuple[Image.Image, complex]:
    """Return what of the picture lies around a cutting, made smaller, and where its corner is in the picture."""
    margin = 2 * shrink
    left, top = (max(0, math.floor(edge) - margin) for edge in corners.min(axis=0))
    right, bottom = (math.ceil(edge) + margin for edge in corners.max(axis=0))
    box = left, top, max(min(right, image.width), left + 1), max(min(bottom, image.height), top + 1)
    return image.crop(box).reduce(shrink), complex(left, top)
