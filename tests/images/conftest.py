"""A picture of a few chunks, as bytes and in a file."""

from __future__ import annotations

import os

import pytest
from albums import JPEG
from picturekit import LARGE_SIZE


@pytest.fixture
def photo(rng):
    """A picture of a few chunks, as the tests know it."""
    return JPEG + rng.randbytes(LARGE_SIZE)


@pytest.fixture
def path(photo, tmp_path):
    """The same picture in a file, last changed long ago, so that any change shows in its time."""
    path = tmp_path / "private name.jpg"
    path.write_bytes(photo)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path
