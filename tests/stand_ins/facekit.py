"""What the tests of recognizers share: drawn people as pictures, and which tests need which recognizer."""

from __future__ import annotations

import io
from functools import cache

import pytest
from PIL import Image

from face_async.portraits import draw_portrait as draw_anew
from face_async.server.recognition import networks
from face_async.server.refusal import Refusal

draw_portrait = cache(draw_anew)
needs_faces = pytest.mark.skipif(not networks.is_installed(), reason="the recognition extra is not installed")


def stored(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def portrait(person=0, shot=0):
    return Image.open(io.BytesIO(draw_portrait(person, shot=shot)))


def box(face):
    return face.x, face.y, face.width, face.height


def refusal(finder, picture):
    with pytest.raises(Refusal) as caught:
        finder.find_face(picture)
    return caught.value.code
