"""The faces of a picture: sightings from near and far, each checked and measured by its mesh.

Most pictures need one look and one mesh. What is small, tilted, cut off at the edge or upside down takes more of both;
the most expensive is a picture without a face.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from attrs import frozen

from face_async.server.recognition.finding import Sighting, Window, full_range, short_range
from face_async.server.recognition.mesh import Measurer, Mesh

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL import Image

_LEAST_CERTAINTY = 0.9  # of a mesh, to be a face
_NEAR = 6  # faces from this part of the picture on are what the short-range detector is made for
_CLOSER = 5  # faces below this part of the picture are worth a closer look, whose points are finer
_CLOSER_SIDES = 2.5  # sides of a face's box that the closer look takes in
_CLEARLY_LARGER = 1.3
_MAYBE_LARGEST = 0.55  # boxes are rough: what is this much smaller than the largest may be the largest by its mesh
_MOST_PARTS = 12  # of a long picture, not counting those between them
_MOST_SIGHTINGS = 64  # that are measured after a look: more come from a crowd, or from who wants to keep us busy
_SURE = 0.75  # a score; below, the face may lie on its side or upside down, and a larger one beside it go unseen
_LONG = 2  # how many times as long as wide a picture is looked at in one piece
# How many tiles a picture is cut into each way, and how much of it each takes in: they overlap, so that a face between
# two of them is whole in one.
_TILES = ((2, 0.6), (3, 0.4))
_TILTED = math.radians(12)  # between the detector's eyes and the mesh's: the mesh saw the face turned
_NEARLY_CERTAIN = 0.999
_SAME_FACE = 0.4  # of a face's side: no two faces have their middles that close together


@frozen
class _Found:
    sighting: Sighting
    mesh: Mesh


class Finder:
    """Finds faces; may be shared by threads."""

    def __init__(self) -> None:
        self._near, self._far, self._measurer = short_range(), full_range(), Measurer()

    def largest(self, image: Image.Image) -> Mesh | None:
        """Return the largest face, None when there is none."""
        best = self._largest_at_first(image)
        if best is not None:
            best = self._largest_of_turned(image, best)
        else:
            found = (self._largest_of(image, sightings) for sightings in self._looks_again(image))
            best = next(filter(None, found), None)
        return self._refined(image, best).mesh if best else None

    def all(self, image: Image.Image, most: int) -> list[Mesh]:
        """Return up to ``most`` faces, the largest first."""
        looks = [*self._looks_near(image), *self._looks_far(image)]
        for tiles, share in _TILES:
            looks += self._looks_at_tiles(image, tiles, share)
        faces = self._distinct(image, looks, most)
        if not faces:
            again = (self._distinct(image, sightings, most) for sightings in self._looks_again(image))
            faces = next(filter(None, again), list[Mesh]())
        return sorted(faces, key=lambda mesh: mesh.area, reverse=True)[:most]

    def _largest_at_first(self, image: Image.Image) -> _Found | None:
        near = self._largest_of(image, self._looks_near(image))
        if near and near.sighting.side >= _extent(image) / _NEAR:
            return near
        far = self._largest_of(image, self._looks_far(image))
        if far and (not near or far.sighting.side > _CLEARLY_LARGER * near.sighting.side):
            return far
        return near

    def _largest_of_turned(self, image: Image.Image, found: _Found) -> _Found:
        """Return a larger face that is seen only when the picture is turned as the one that was found."""
        quarters = round(found.mesh.angle / (math.pi / 2)) % 4
        turns = (1, 2, 3) if found.sighting.score < _SURE else (quarters,) if quarters else ()
        windows = (Window(0, 0, *image.size, turn) for turn in turns)
        sightings = [sighting for window in windows for sighting in self._near.look(image, window)]
        turned = self._largest_of(image, sightings)
        return turned if turned and turned.mesh.area > found.mesh.area else found

    def _looks_near(self, image: Image.Image) -> Iterator[Sighting]:
        for window in _views(image):
            yield from self._near.look(image, window)

    def _looks_far(self, image: Image.Image) -> Iterator[Sighting]:
        for window in _views(image):
            yield from self._far.look(image, window)

    def _looks_at_tiles(self, image: Image.Image, tiles: int, share: float) -> Iterator[Sighting]:
        for window in _tiles(image, tiles, share):
            yield from self._far.look(image, window)

    def _looks_again(self, image: Image.Image) -> Iterator[Iterable[Sighting]]:
        """Yield looks of growing desperation: closer, from farther away, and at the picture turned."""
        for tiles, share in _TILES:
            yield self._looks_at_tiles(image, tiles, share)
        width, height = image.size
        yield self._near.look(image, Window(-width // 2, -height // 2, 2 * width, 2 * height))
        for turns in (2, 1, 3):
            turned = Window(0, 0, width, height, turns)
            yield [*self._near.look(image, turned), *self._far.look(image, turned)]

    def _largest_of(self, image: Image.Image, sightings: Iterable[Sighting]) -> _Found | None:
        faces: list[_Found] = []
        for sighting in sorted(_surest(sightings, _MOST_SIGHTINGS), key=lambda sighting: -sighting.side):
            if faces and sighting.side < _MAYBE_LARGEST * faces[0].sighting.side:
                break
            mesh = self._measurer.at(image, sighting)
            if mesh.certainty >= _LEAST_CERTAINTY:
                faces.append(_Found(sighting, mesh))
        return max(faces, key=lambda found: found.mesh.area, default=None)

    def _distinct(self, image: Image.Image, sightings: Iterable[Sighting], most: int) -> list[Mesh]:
        faces: list[Mesh] = []
        for sighting in _surest(sightings, _MOST_SIGHTINGS + 2 * most):
            if any(_covers(face, sighting) for face in faces):
                continue
            mesh = self._measurer.at(image, sighting)
            if mesh.certainty >= _LEAST_CERTAINTY:
                mesh = self._refined(image, _Found(sighting, mesh)).mesh
                if not any(_is_same(face, mesh) for face in faces):
                    faces.append(mesh)
        return faces

    def _refined(self, image: Image.Image, found: _Found) -> _Found:
        if found.sighting.side < _extent(image) / _CLOSER:
            found = self._closer(image, found)
        sighting, mesh = found.sighting, found.mesh
        if abs(_turn(mesh.angle - sighting.angle)) > _TILTED:
            mesh = self._surer(mesh, self._measurer.again(image, mesh), loss=0.02)
        if mesh.certainty < _NEARLY_CERTAIN or abs(sighting.angle) > math.radians(115):
            other = self._measurer.again(image, self._measurer.at(image, sighting, turn=math.pi))
            mesh = self._surer(mesh, other)
        return _Found(sighting, mesh)

    def _closer(self, image: Image.Image, found: _Found) -> _Found:
        """Return the face as it is seen in a window of its own."""
        window = Window.around(found.sighting.middle, _CLOSER_SIDES * found.sighting.side)
        for sighting in self._near.look(image, window)[:1]:
            mesh = self._measurer.at(image, sighting)
            if mesh.certainty >= max(_LEAST_CERTAINTY, found.mesh.certainty - 0.05):
                found = _Found(sighting, mesh)
        again = self._measurer.again(image, found.mesh)
        return _Found(found.sighting, self._surer(found.mesh, again, loss=0.02))

    @staticmethod
    def _surer(mesh: Mesh, other: Mesh, *, loss: float = 0.0) -> Mesh:
        """Return the other face unless it is less certain by more than ``loss``."""
        return other if other.certainty > mesh.certainty - loss else mesh


def _extent(image: Image.Image) -> int:
    return min(max(image.size), _LONG * min(image.size))


def _views(image: Image.Image) -> Iterator[Window]:
    """Yield the whole picture, and parts of a long one: squares, unless there were too many of them."""
    width, height = image.size
    yield Window(0, 0, width, height)
    side, length = min(image.size), max(image.size)
    if length <= _LONG * side:
        return
    part = max(side, length // _MOST_PARTS)
    count = math.ceil(3 * (length - part) / (2 * part)) + 1  # each shares at least a third with the one before
    for at in (round(place * (length - part) / (count - 1)) for place in range(count)):
        yield Window(at, 0, part, side) if width > height else Window(0, at, side, part)


def _tiles(image: Image.Image, tiles: int, share: float) -> Iterator[Window]:
    width, height = (max(1, round(share * side)) for side in image.size)
    for across, down in itertools.product(range(tiles), repeat=2):
        left = round(across * (image.width - width) / (tiles - 1))
        top = round(down * (image.height - height) / (tiles - 1))
        yield Window(left, top, width, height)


def _surest(sightings: Iterable[Sighting], most: int) -> list[Sighting]:
    return sorted(sightings, key=lambda sighting: -sighting.score)[:most]


def _turn(angle: float) -> float:
    """Return an angle as -pi to pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _covers(face: Mesh, sighting: Sighting) -> bool:
    middle, side, _ = face.outline()
    return abs(middle - sighting.middle) < _SAME_FACE * side and sighting.side < 2 * side


def _is_same(face: Mesh, other: Mesh) -> bool:
    middle, side, _ = face.outline()
    other_middle, other_side, _ = other.outline()
    return abs(middle - other_middle) < _SAME_FACE * min(side, other_side)
