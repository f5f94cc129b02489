"""Prefixes in object storage as sources, listed object by object as folders are walked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from face_async.errors import quoted
from face_async.images.folders import is_litter
from face_async.ingest.objects import ObjectFolder
from face_async.ingest.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from face_async.ingest.rows import Found


def walk_objects(url: str, pass_over: Callable[[str], object] | None) -> Iterator[Found]:
    """Yield the pictures below a prefix, which has one prefix for each person, named by the person's id.

    Raises:
        ObjectStorageError: It cannot be listed.
        ValueError: Nothing below it is in a person's prefix.
    """
    persons = False
    for name in object_names(url, pass_over):
        person_id, slash, _ = name.partition("/")
        picture = f"{url.rstrip('/')}/{name}"
        if not slash:
            yield picture, 0, "it is below no person's prefix; put it below one named by the person's id"
            continue
        persons = True
        yield picture, 0, Row(person_id, picture)
    if not persons:
        raise ValueError(
            f"{quoted(url)} has no pictures in it: below it there must be a prefix for each person, named by the "
            "person's id, with the pictures below that"
        )


def object_names(url: str, pass_over: Callable[[str], object] | None = None) -> Iterator[str]:
    """Yield the names of all objects below a prefix, without litter; ``pass_over`` is called with the URLs of that.

    Raises:
        ObjectStorageError: It cannot be listed.
    """
    folder = ObjectFolder(url)
    folder.check()
    for name, size in folder.names():
        *folders, last = name.split("/")
        marker = not size and "." not in last  # consoles make an empty object for each "folder"
        if not marker and not any(map(is_litter, (*folders, last))):
            yield name
        elif pass_over is not None and not marker:
            pass_over(f"{folder.url}/{name}")
