"""Small pictures of faces, kept with them where that is asked for, so that people can see whom they look after."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

from attrs import evolve, frozen

from face_async.server.recognition.base import decode_or_refuse

if TYPE_CHECKING:
    from face_async.images.decoding import DecodedPicture
    from face_async.server.recognition.base import Face, Recognizer

_SIDE = 160  # pixels of a thumbnail
_LONGEST_SIDE = 1_600  # of the picture that it is cut from
_MARGIN = 0.3  # of the box, on each side


def keeping_thumbnails(recognizer: Recognizer) -> Recognizer:
    """Return a recognizer whose :meth:`~Recognizer.find_face` gives faces thumbnails; in all else it is the same one.

    They are cut from the picture as it was decoded for recognition, which recognizers of your own do not hand over: for
    those each picture is decoded once more.
    """
    return cast("Recognizer", _ThumbnailRecognizer(recognizer))


@frozen
class _ThumbnailRecognizer:
    recognizer: Recognizer

    def find_face(self, picture: bytes) -> Face:
        find_decoded_face = getattr(self.recognizer, "find_decoded_face", None)
        if find_decoded_face is None:
            face, decoded = self.recognizer.find_face(picture), decode_or_refuse(picture, longest_side=_LONGEST_SIDE)
        else:
            face, decoded = find_decoded_face(picture)
        return evolve(face, thumbnail=_thumbnail(decoded, face))

    def __getattr__(self, name: str) -> object:
        return getattr(self.recognizer, name)


def _thumbnail(decoded: DecodedPicture, face: Face) -> bytes:
    image = decoded.image
    scale = image.width / decoded.width
    half = scale * (0.5 + _MARGIN) * max(face.width, face.height)
    across, down = scale * (face.x + face.width / 2), scale * (face.y + face.height / 2)
    box = (max(0, across - half), max(0, down - half), min(image.width, across + half), min(image.height, down + half))
    cut = image.crop((int(box[0]), int(box[1]), round(box[2]), round(box[3])))
    cut.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    cut.convert("RGB").save(out, "JPEG", quality=80)
    return out.getvalue()
