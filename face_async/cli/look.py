"""``groups``, ``persons``, ``faces``, ``info``: look at what the service stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from face_async.cli.options import AsJson, BaseUrl, Db, PersonId, ask
from face_async.cli.output import say_ids, say_result

if TYPE_CHECKING:
    from face_async.models import FaceInfo, PersonInfo
    from face_async.session import FaceSession

GroupId = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")]


def groups(*, db: Db = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """List the ids of all groups."""
    group_ids = ask(lambda session: session.get_group_ids(), db=db, base_url=base_url)
    say_ids("group_ids", group_ids, as_json=as_json)


def persons(group_id: GroupId, *, db: Db = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """List the ids of a group's persons."""
    person_ids = ask(lambda session: session.get_person_ids(group_id), db=db, base_url=base_url)
    say_ids("person_ids", person_ids, as_json=as_json)


def faces(person_id: PersonId, *, db: Db = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """List the ids of a person's faces."""
    face_ids = ask(lambda session: session.get_face_ids(person_id), db=db, base_url=base_url)
    say_ids("face_ids", face_ids, as_json=as_json)


def info(
    person_id: Annotated[str | None, typer.Argument(metavar="PERSON", help="The person's id.")] = None,
    *,
    face_id: Annotated[str | None, typer.Option("--face", metavar="FACE_ID", help="Tell of this face instead.")] = None,
    db: Db = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell what is known of a person, or of a face."""
    if (person_id is None) == (face_id is None):
        raise ValueError("info wants a PERSON or --face FACE_ID, and not both")

    async def known(session: FaceSession) -> PersonInfo | FaceInfo:
        return await (session.get_info(person_id) if person_id is not None else session.get_face_info(face_id or ""))

    say_result(ask(known, db=db, base_url=base_url), as_json=as_json)
