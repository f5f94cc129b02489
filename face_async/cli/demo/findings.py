"""What a demo found out: for its table, its JSON and its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from face_async.cli.demo.people import Person
    from face_async.cli.pictures import Picture
    from face_async.errors import FaceError
    from face_async.models import Candidate
    from face_async.session import Stats


@frozen
class Trial:
    """One probe, and whom the service saw in it."""

    person: Person
    probe: Picture
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
class Findings:
    """All that a demo found out.

    Attributes:
        people: Everybody who was enrolled.
        faces: What was enrolled: face id -> picture.
        trials: One per probe.
        recognizer: Who looked at the pictures.
        seconds: How long enrolling and recognizing took together.
        stats: What the session did meanwhile.
    """

    people: Sequence[Person]
    faces: Mapping[str, Picture] = field(repr=False)
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
