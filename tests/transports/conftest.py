"""A large picture, for uploads that take their time."""

from __future__ import annotations

import pytest
from faults import LARGE


@pytest.fixture
def large(tmp_path):
    """A large picture in a file."""
    path = tmp_path / "large.jpg"
    path.write_bytes(LARGE)
    return path
