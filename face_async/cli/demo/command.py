"""``demo``: enroll people on a local server over http, then recognize them."""

from __future__ import annotations

import time
from contextlib import closing
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from rich.text import Text

from face_async import SAME_PERSON
from face_async.cli.demo.people import drawn_people, drawn_strangers, photographed_people
from face_async.cli.demo.report import write_report
from face_async.cli.demo.result import DemoResult, Trial
from face_async.cli.exits import Exit, one_line
from face_async.cli.language import translated
from face_async.cli.options import AsJson, ProgressOption, RecognizerName, RecognizerOption
from face_async.cli.output import foreign, say, say_json, say_table, tell
from face_async.cli.progress import ProgressDisplay
from face_async.errors import printable
from face_async.images.folders import PassedOver
from face_async.ingest.output_file import check_output
from face_async.session import FaceSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.cli.demo.people import Participant
    from face_async.cli.pictures import PictureSource

# Recognition takes most of the time: more requests at once would only wait in the server, and time out.
_AT_ONCE = 16
_TIMEOUT = 60.0
_DEADLINE = 300.0


def demo(
    *,
    people: Annotated[int, typer.Option("--people", min=1, max=1_000, help="How many people to draw.")] = 12,
    faces: Annotated[int, typer.Option("--faces", min=1, max=20, help="How many pictures to enroll of each.")] = 2,
    photos: Annotated[
        Path | None,
        typer.Option("--photos", metavar="FOLDER", help="Use photographs: one sub-folder a person, named after them."),
    ] = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page with all pictures, too.")
    ] = None,
    progress: ProgressOption = None,
    as_json: AsJson = False,
) -> None:
    """Enroll people on a local server, recognize them, and show the results.

    People are drawn, and two strangers who are not enrolled. With --photos there are no strangers: of a person's
    pictures those called probe... are to be recognized, or the last one by name if there are none, and all others are
    enrolled. Whoever is found with a confidence below 75 is nobody. The exit code is 1 unless everybody was recognized,
    and every stranger is nobody.
    """
    if report is not None:
        check_output(report)  # before the work
    display = ProgressDisplay(progress)
    if photos is None:
        with display:
            participants = list(display.track(drawn_people(people, faces=faces), _("drawing"), people))
        participants += drawn_strangers()
    else:
        passed_over = PassedOver()
        participants = photographed_people(photos, passed_over)
        if str(passed_over):
            tell(_("passed over: {what}").format(what=translated(str(passed_over))))
        _remark_on(participants)
    taking_part = [person for person in participants if person.enrolled or person.is_stranger]
    result = anyio.run(perform, taking_part, recognizer.value, display)
    if as_json:
        say_json(_as_json(result))
    else:
        _say_trials(result)
        say(result.summary)
    if report is not None:
        write_report(report, result)
        tell(_("wrote {path}").format(path=report))
    raise typer.Exit(Exit.OK if result.all_right else Exit.NO)


async def perform(people: Sequence[Participant], recognizer: str, display: ProgressDisplay) -> DemoResult:
    """Enroll people on a new server, and identify their probes there."""
    from face_async.local import LOCAL_APPID, LOCAL_BUCKET, random_credentials  # noqa: PLC0415 - slow to import
    from face_async.server import Store, create_app, serve_in_background  # noqa: PLC0415
    from face_async.server import recognizer as make_recognizer  # noqa: PLC0415

    strangers = [person for person in people if person.is_stranger]
    people = [person for person in people if not person.is_stranger]
    credentials = random_credentials()
    with Store() as store, closing(make_recognizer(recognizer)) as chosen:
        app = create_app(store, credentials=credentials, recognizer=chosen)
        async with (
            serve_in_background(app) as server,
            FaceSession(
                LOCAL_APPID,
                LOCAL_BUCKET,
                credentials,
                base_url=server.base_url,
                timeout=_TIMEOUT,
                deadline=_DEADLINE,
            ) as session,
        ):
            started = time.perf_counter()
            with display:
                enrolled = await _enroll(session, people, display)
                trials = await _identify_all(session, people, strangers, display)
            seconds = time.perf_counter() - started
            return DemoResult(people, enrolled, trials, chosen.name, seconds, session.stats)


async def _enroll(
    session: FaceSession, people: Sequence[Participant], display: ProgressDisplay
) -> dict[str, PictureSource]:
    """Create the people and add their pictures; return face id -> picture."""

    async def create(person: Participant) -> None:
        await session.new_person(person.person_id, [person.group_id], person_name=person.name)

    async with anyio.create_task_group() as tasks:
        for person in people:
            tasks.start_soon(create, person)

    pairs = [(person.person_id, picture) for person in people for picture in person.enrolled]
    faces: dict[str, PictureSource] = {}
    display.begin(_("enrolling"), len(pairs))
    async with session.add_faces(pairs, max_at_once=_AT_ONCE) as outcomes:
        async for outcome in outcomes:
            display.advance()
            person_id, picture = pairs[outcome.index]
            if outcome.result is not None and outcome.result.face_id is not None:
                faces[outcome.result.face_id] = picture
            elif outcome.error is not None:
                tell(
                    _("not enrolled for {person_id}: {label}: {reason}").format(
                        person_id=person_id, label=_label(picture), reason=translated(one_line(outcome.error))
                    )
                )
    usable = set(faces.values())
    for person in people:
        if usable.isdisjoint(person.enrolled):
            tell(_("{name} has no usable picture, and cannot be recognized").format(name=printable(person.name)))
    return faces


async def _identify_all(
    session: FaceSession, people: Sequence[Participant], strangers: Sequence[Participant], display: ProgressDisplay
) -> list[Trial]:
    """Identify every probe in its person's group, all groups at once; the last one and strangers in all groups."""
    probes = [(person, probe) for person in people for probe in person.probes]
    group_ids = list(dict.fromkeys(person.group_id for person in people))
    everywhere = probes[-1:] + [(person, probe) for person in strangers for probe in person.probes]
    display.begin(_("recognizing"), len(probes) + len(everywhere))
    trials: dict[int, Trial] = {}  # by place, as they are completed in any order

    async def in_group(group_id: str) -> None:
        places = [place for place, (person, _) in enumerate(probes) if person.group_id == group_id]
        images = [probes[place][1] for place in places]
        async with session.identify_many(images, group_id, max_at_once=_AT_ONCE) as outcomes:
            async for outcome in outcomes:
                place = places[outcome.index]
                candidates = outcome.result.candidates if outcome.result else ()
                trials[place] = Trial(*probes[place], group_id, candidates, outcome.error)
                display.advance()

    async def in_all_groups(place: int, person: Participant, probe: PictureSource) -> None:
        answer = await session.identify_in_groups(probe, group_ids, errors="collect")
        error = next(iter(answer.errors.values()), None)
        trials[place] = Trial(person, probe, "all groups", answer.candidates, error)
        display.advance()

    async with anyio.create_task_group() as tasks:
        for group_id in group_ids:
            tasks.start_soon(in_group, group_id)
        for place, (person, probe) in enumerate(everywhere, len(probes)):
            tasks.start_soon(in_all_groups, place, person, probe)
    return [trials[place] for place in sorted(trials)]


def _remark_on(people: Sequence[Participant]) -> None:
    for person in people:
        if not person.enrolled:
            tell(_("{name} has no picture to enroll, and takes no part").format(name=printable(person.name)))
        elif not person.probes:
            tell(
                _("{name} has a single picture: enrolled, but there is none to recognize").format(
                    name=printable(person.name)
                )
            )


def _label(picture: PictureSource) -> str:
    return printable(str(picture)) if isinstance(picture, Path) else _("a drawn picture")


def _say_trials(result: DemoResult) -> None:
    rows: list[tuple[str | Text, ...]] = []
    for trial in result.trials:
        verdict = Text(_("right"), "green") if trial.right else Text(_("wrong"), "bold red")
        confidence = "" if trial.best is None else f"{trial.best.confidence:.1f}"
        if trial.found is not None:
            name = result.names.get(trial.found.person_id, trial.found.person_id)
        else:
            name = _("nobody") if trial.error is None else translated(one_line(trial.error))
        rows.append((translated(trial.person.name), translated(trial.where), foreign(name), confidence, verdict))
    say_table(
        (
            _("who it is"),
            _("searched in"),
            _("who was found, from {threshold:g} on").format(threshold=SAME_PERSON),
            _("confidence"),
            "",
        ),
        rows,
    )


def _as_json(result: DemoResult) -> dict[str, object]:
    return {
        "recognized": result.recognized,
        "threshold": SAME_PERSON,
        "probes": [
            {
                "person_id": trial.person.person_id,
                "name": trial.person.name,
                "searched_in": trial.where,
                "found": trial.found.person_id if trial.found else None,
                "confidence": trial.best.confidence if trial.best else None,
                "right": trial.right,
                "error": None if trial.error is None else one_line(trial.error),
            }
            for trial in result.trials
        ],
        "people": len(result.people),
        "faces": len(result.faces),
        "requests": result.stats.requests,
        "retries": result.stats.retries,
        "bytes_sent": result.stats.bytes_sent,
        "seconds": round(result.seconds, 3),
        "recognizer": result.recognizer,
    }
