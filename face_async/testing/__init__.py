"""For the tests of programs that use this package: a local server with scripted faults.

Needs the extra ``server``. With pytest, ask for the fixtures ``face_server`` and ``face_session``::

    async def test_the_door_opens_for_staff(face_server, face_session):
        await face_session.new_person("ada", ["staff"], draw_portrait(1))
        face_server.faults.add("identify", code=15, times=2)
        assert await who_is_at_the_door(face_session, draw_portrait(1, shot=1)) == "ada"
        assert [call.code for call in face_server.calls("identify")] == [15, 15, 0]
        assert not face_server.faults.pending

:mod:`face_async.portraits` draws the pictures, :mod:`face_async.server.faults` lists the faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face_async.testing.face_server import FaceServer as FaceServer
    from face_async.testing.face_server import RecordedCall as RecordedCall

__all__ = ["FaceServer", "RecordedCall"]


def __getattr__(name: str) -> object:
    # pytest imports the plugin, and with it this package, in every run: the server is imported when it is asked for.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from face_async.testing import face_server  # noqa: PLC0415 - see above

    return getattr(face_server, name)
