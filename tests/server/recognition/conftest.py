"""The recognizers, each alone and both in turn."""

from __future__ import annotations

import pytest
from facekit import needs_faces

from face_async.server.recognition import recognizer


@pytest.fixture(scope="module")
def faces():
    return recognizer("faces")


@pytest.fixture(scope="module")
def fingerprint():
    return recognizer("fingerprint")


@pytest.fixture(params=["fingerprint", pytest.param("faces", marks=needs_faces)])
def finder(request):
    return request.getfixturevalue(request.param)
