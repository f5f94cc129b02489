"""The result of a demo: for its table, its JSON and its page."""

from __future__ import annotations

from gettext import gettext as _
from typing import TYPE_CHECKING

from attrs import field, frozen

from face_async import SAME_PERSON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from face_async import Candidate
    from face_async.cli.demo.people import Participant
    from face_async.cli.pictures import PictureSource
    from face_async.errors import FaceError
    from face_async.session import Stats


@frozen
class Trial:
    """One probe, and the persons whom the service took it for.

    Attributes:
        person: The person whom it shows.
        probe: The picture.
        where: The group that was searched, or "all groups".
        candidates: The answer, most confident first.
        error: Why there is no answer.
        threshold: The confidence from which on it is the same person.
    """

    person: Participant
    probe: PictureSource
    where: str
    candidates: Sequence[Candidate] = ()
    error: FaceError | ValueError | None = None
    threshold: float = SAME_PERSON

    @property
    def best(self) -> Candidate | None:
        """The most confident candidate."""
        return self.candidates[0] if self.candidates else None

    @property
    def found(self) -> Candidate | None:
        """The most confident candidate, unless its confidence is below the threshold: then it is nobody."""
        return self.best if self.best is not None and self.best.confidence >= self.threshold else None

    @property
    def right(self) -> bool:
        """Whether the person was recognized, or nobody was found to be a stranger."""
        if self.person.is_stranger:
            return self.error is None and self.found is None
        return self.found is not None and self.found.person_id == self.person.person_id


@frozen
class DemoResult:
    """The result of a demo.

    Attributes:
        people: Everybody who was enrolled.
        faces: What was enrolled: face id -> picture.
        trials: One per probe.
        recognizer: The name of the recognizer.
        seconds: Seconds that enrolling and recognizing took together.
        stats: The session's requests and bytes.
    """

    people: Sequence[Participant]
    faces: Mapping[str, PictureSource] = field(repr=False)
    trials: Sequence[Trial]
    recognizer: str
    seconds: float
    stats: Stats

    @property
    def recognized(self) -> int:
        """How many probes of those who are enrolled were recognized."""
        return sum(trial.right for trial in self.trials if not trial.person.is_stranger)

    @property
    def counts(self) -> str:
        """How many probes were recognized, and how many strangers came out as nobody."""
        strangers = [trial for trial in self.trials if trial.person.is_stranger]
        said = _("{recognized} of {count} recognized").format(
            recognized=self.recognized, count=len(self.trials) - len(strangers)
        )
        nobody = sum(trial.right for trial in strangers)
        return (
            _("{said}, {nobody} of {strangers} strangers are nobody").format(
                said=said, nobody=nobody, strangers=len(strangers)
            )
            if strangers
            else said
        )

    @property
    def all_right(self) -> bool:
        """Whether every probe was recognized, and every stranger was nobody; no probe at all proves nothing."""
        return self.recognized > 0 and all(trial.right for trial in self.trials)

    @property
    def names(self) -> dict[str, str]:
        """Person id -> name."""
        return {person.person_id: person.name for person in self.people}

    @property
    def summary(self) -> str:
        """All counts in one line."""
        return _(
            "{counts}: {people} people, {faces} faces, {requests} requests in {seconds:.1f} s "
            "({rate:.0f} a second), recognizer {recognizer}"
        ).format(
            counts=self.counts,
            people=len(self.people),
            faces=len(self.faces),
            requests=self.stats.requests,
            seconds=self.seconds,
            rate=self.stats.requests / self.seconds,
            recognizer=self.recognizer,
        )
