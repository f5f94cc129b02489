"""The endpoints of a later revision of the API: detect, shape, addgroupids, delgroupids, multidentify.

What nobody has seen the hosted service do is decided as the 13 endpoints do it; ``docs/server.md`` has the table.
"""

from __future__ import annotations

import secrets
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from face_async.errors import ReturnCode
from face_async.server.handlers import HANDLERS, search
from face_async.server.storage.workers import reads, writes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from face_async.server.handlers import Call
    from face_async.server.recognition import Face

MOST_FACES = 100
"""How many faces of one picture are answered at most."""

DESCRIBED_FACES = 5
"""How many faces detect describes; of the others it answers id and box alone."""


async def add_group_ids(call: Call) -> dict[str, object]:
    """Put a person in further groups."""
    group_ids = call.parameters.ids("group_ids", empty=ReturnCode.ERROR_GROUPLIST_NOT_EXISTED)
    person_id = call.parameters.id("person_id")
    added = await writes.run(call.store.add_to_groups, call.appid, person_id, group_ids, limits=call.limits)
    return {"person_id": person_id, "added": len(added), "group_ids": added}


async def del_group_ids(call: Call) -> dict[str, object]:
    """Take a person out of groups."""
    group_ids = call.parameters.ids("group_ids", empty=ReturnCode.ERROR_GROUPLIST_NOT_EXISTED)
    person_id = call.parameters.id("person_id")
    deleted = await writes.run(call.store.remove_from_groups, call.appid, person_id, group_ids)
    return {"person_id": person_id, "deleted": len(deleted), "group_ids": deleted}


async def multi_identify(call: Call) -> dict[str, object]:
    """Find, for each face of a picture, the persons of some groups who are most like it."""
    begun = time.perf_counter()
    group_ids = call.parameters.groups()
    picture = call.parameters.picture("image", "url")
    await reads.run(call.store.require_groups, call.appid, group_ids)
    found = await call.finder.find_faces(picture, MOST_FACES)
    candidates, effort = await search(call, group_ids, found.faces, begun)
    results = [
        {"candidates": each, "face_rect": _box(face)} for each, face in zip(candidates, found.faces, strict=True)
    ]
    return {"results": results, **effort}


async def detect(call: Call) -> dict[str, object]:
    """Describe the faces of a picture, the largest first."""
    largest_only = call.parameters.largest_only()
    picture = call.parameters.picture("image", "url")
    found = await call.finder.find_faces(picture, 1 if largest_only else MOST_FACES)
    return {
        "image_width": found.width,
        "image_height": found.height,
        "face": [_item(face, described=place < DESCRIBED_FACES) for place, face in enumerate(found.faces)],
    }


async def shape(call: Call) -> dict[str, object]:
    """Return the 88 points of each face of a picture, the largest face first."""
    largest_only = call.parameters.largest_only()
    picture = call.parameters.picture("image", "url")
    found = await call.finder.find_shapes(picture, 1 if largest_only else MOST_FACES)
    return {
        "image_width": found.width,
        "image_height": found.height,
        "face_shape": [
            {part: [{"x": x, "y": y} for x, y in points] for part, points in points_of.items()}
            for points_of in found.faces
        ],
    }


def _box(face: Face) -> dict[str, object]:
    return {"x": face.x, "y": face.y, "width": face.width, "height": face.height}


def _item(face: Face, *, described: bool) -> dict[str, object]:
    """Return a face as the specification's FaceItem (Spec: 2.10), to which this revision adds ``beauty``."""
    named = {"face_id": _new_face_id(), **_box(face)}
    if not described:
        return named
    return {**named, **{name: getattr(face, name) for name in _DESCRIPTION}, "beauty": 0}


def _new_face_id() -> str:
    return str(10**18 + secrets.randbelow(9 * 10**18))  # 19 digits, as those of stored faces


_DESCRIPTION = ("gender", "age", "expression", "glass", "pitch", "yaw", "roll")

LATER_HANDLERS: Mapping[str, Callable[[Call], Awaitable[dict[str, object]]]] = MappingProxyType(
    {
        "detect": detect,
        "shape": shape,
        "addgroupids": add_group_ids,
        "delgroupids": del_group_ids,
        "multidentify": multi_identify,
    }
)
"""The name of each later endpoint -> what answers it."""

ALL_HANDLERS = MappingProxyType({**HANDLERS, **LATER_HANDLERS})
"""The name of each endpoint that there is -> what answers it."""
