"""The result of a demo: for its table, its JSON and its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from face_async.cli.demo.people import Participant
    from face_async.cli.pictures import PictureSource
    from face_async.errors import FaceError
    from face_async.models import Candidate
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
    """

    person: Participant
    probe: PictureSource
    where: str
    candidates: Sequence[Candidate] = ()
    error: FaceError | ValueError | None = None

    @property
    def best(self) -> Candidate | None:
        """The most confident candidate."""
        return self.candidates[0] if self.candidates else None

    @property
    def right(self) -> bool:
        """Whether the person was recognized."""
        return self.best is not None and self.best.person_id == self.person.person_id


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
        """How many probes were recognized."""
        return sum(trial.right for trial in self.trials)

    @property
    def all_right(self) -> bool:
        """Whether every probe was recognized; no probe at all proves nothing."""
        return 0 < self.recognized == len(self.trials)

    @property
    def names(self) -> dict[str, str]:
        """Person id -> name."""
        return {person.person_id: person.name for person in self.people}

    @property
    def summary(self) -> str:
        """All counts in one line."""
        return (
            f"{self.recognized} of {len(self.trials)} recognized: {len(self.people)} people, {len(self.faces)} faces, "
            f"{self.stats.requests} requests in {self.seconds:.1f} s "
            f"({self.stats.requests / self.seconds:.0f} a second), recognizer {self.recognizer}"
        )
