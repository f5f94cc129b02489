"""Whether a picture lies where its folder or manifest is, or a link or a path leads out of there.

Whoever fills a folder must not be able to have any file sent that the user may read.
"""

from __future__ import annotations

import os
from functools import lru_cache

from face_async.ingest.objects import is_object_url
from face_async.ingest.schema import shown

_OUTSIDE = "it lies outside of {folder}, where a link or its path leads: --allow-outside (allow_outside=True) takes it"


class Enclosure:
    """A folder, and what lies in it once links are followed.

    Args:
        folder: The folder; it may itself be a link, or a URL of object storage, where there are no links.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._reason = _OUTSIDE.format(folder=shown(os.fspath(folder)))
        place = os.fspath(folder)
        place = place if is_object_url(place) else os.path.realpath(place)
        self._start = os.path.join(place, "")  # noqa: PTH118 - for each of millions
        self._real_folder = lru_cache(maxsize=256)(os.path.realpath)

    def complaint(self, path: str) -> str | None:
        """Return why a file or folder does not lie in the folder, None if it does. It blocks."""
        if is_object_url(path):
            return None if path.startswith(self._start) and "/../" not in path else self._reason
        folder, name = os.path.split(path)
        place = os.path.join(self._real_folder(folder), name)  # noqa: PTH118 - as above
        if os.path.islink(place):  # noqa: PTH114 - as above
            place = os.path.realpath(place)
        return None if place.startswith(self._start) else self._reason
