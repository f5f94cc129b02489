"""``groups``, ``persons``, ``faces``, ``info``, ``delete``: show and delete what the service stores."""

from __future__ import annotations

import sys
from gettext import gettext as _
from typing import TYPE_CHECKING, Annotated

import typer

from face_async.cli.exits import Exit, fail
from face_async.cli.options import AsJson, BaseUrl, Db, PersonId, ServiceChoice, ask
from face_async.cli.output import say_ids, say_result
from face_async.errors import printable

if TYPE_CHECKING:
    from face_async import DelFaceResult, DelPersonResult, FaceInfo, PersonInfo
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
    face_id: Annotated[
        str | None, typer.Option("--face", metavar="FACE_ID", help="Show this face instead of a person.")
    ] = None,
    db: Db = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the stored data of a person, or of a face."""
    if (person_id is None) == (face_id is None):
        raise ValueError("info needs a PERSON or --face FACE_ID, and not both")

    async def get(session: FaceSession) -> PersonInfo | FaceInfo:
        return await (session.get_info(person_id) if person_id is not None else session.get_face_info(face_id or ""))

    say_result(ask(get, db=db, base_url=base_url), as_json=as_json)


def delete(
    person_id: PersonId,
    *,
    face_ids: Annotated[
        list[str] | None, typer.Option("--face", metavar="FACE_ID", help="Delete this face only; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    db: Db = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete a person with all faces, or only some faces."""
    if not yes and not _is_terminal():
        raise fail(_("nothing deleted: say --yes, as there is no terminal to ask on"))
    what = (
        _("these {count} faces of {person_id}").format(count=len(face_ids), person_id=person_id)
        if face_ids
        else _("{person_id} with all faces").format(person_id=person_id)
    )

    def confirm(service: ServiceChoice) -> None:
        service.announce_service()
        if not typer.confirm(_("Delete {what}?").format(what=printable(what)), err=True):
            raise fail(_("nothing deleted"), Exit.NO)

    async def erase(session: FaceSession) -> DelPersonResult | DelFaceResult:
        return await (session.del_face(person_id, face_ids) if face_ids else session.del_person(person_id))

    say_result(ask(erase, db=db, base_url=base_url, confirm=None if yes else confirm), as_json=as_json)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
