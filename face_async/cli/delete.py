"""``delete``: a person, or some of a person's faces."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from face_async.cli.exits import Exit, fail
from face_async.cli.options import AsJson, BaseUrl, Db, PersonId, ask
from face_async.cli.output import say_result
from face_async.errors import printable

if TYPE_CHECKING:
    from face_async.models import DelFaceResult, DelPersonResult
    from face_async.session import FaceSession


def delete(
    person_id: PersonId,
    *,
    face_ids: Annotated[
        list[str] | None, typer.Option("--face", metavar="FACE_ID", help="Delete this face only; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: Db = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete a person with all faces, or only some faces."""
    if not yes:
        what = f"these {len(face_ids)} faces of {person_id}" if face_ids else f"{person_id} with all faces"
        _confirm(f"Delete {printable(what)}?")

    async def erase(session: FaceSession) -> DelPersonResult | DelFaceResult:
        return await (session.del_face(person_id, face_ids) if face_ids else session.del_person(person_id))

    say_result(ask(erase, db=db, base_url=base_url), as_json=as_json)


def _confirm(question: str) -> None:
    if not _is_terminal():
        raise fail("nothing deleted: say --yes, as there is no terminal to ask on")
    if not typer.confirm(question, err=True):
        raise fail("nothing deleted", Exit.NO)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
