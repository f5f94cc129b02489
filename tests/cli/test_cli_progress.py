"""How commands that take a while show how far they have come: a bar, lines now and then, or nothing."""

from __future__ import annotations

import pytest

from face_async.cli import progress as progress_module
from face_async.cli.fleet import FleetDisplay
from face_async.cli.progress import ProgressDisplay, ProgressStyle
from face_async.fleet import FleetSummary
from face_async.portraits import draw_portrait

LINE_EVERY = progress_module._LINE_EVERY  # as it is outside of tests
FAST = ("--recognizer", "fingerprint")


@pytest.fixture
def told(capsys):
    """Return the lines on standard error, and check that there is nothing on the other one."""

    def read() -> list[str]:
        said = capsys.readouterr()
        assert said.out == ""
        return [line.removeprefix("face-async: ") for line in said.err.splitlines()]

    return read


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    now = [1_000.0]
    monkeypatch.setattr(progress_module, "_LINE_EVERY", LINE_EVERY)
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_comes_every_ten_seconds_and_at_the_end(told, clock):
    with ProgressDisplay() as display:
        display.begin("copying", 3_000)
        for _ in range(60):
            clock[0] += 1
            display.advance()
    assert told() == [
        "copying: 10 of 3,000, 1.0/s",
        "copying: 20 of 3,000, 1.0/s",
        "copying: 30 of 3,000, 1.0/s",
        "copying: 40 of 3,000, 1.0/s",
        "copying: 50 of 3,000, 1.0/s",
        "copying: 60 of 3,000, 1.0/s",
    ]


def test_what_takes_no_time_has_no_line_unless_that_is_asked_for(told, clock):
    for style, lines in ((None, []), (ProgressStyle.LOG, ["drawing: 2 of 2", "looking: 1, 1 failed, slowly"])):
        with ProgressDisplay(style) as display:
            assert list(display.track("ab", "drawing", 2)) == ["a", "b"]
            display.begin("looking")
            display.show(1, failed=1, note="slowly")
        assert told() == lines


def test_the_end_of_each_kind_of_work_has_a_line_after_work_that_took_long(told, clock):
    """However short it is itself: what is said last is how it ended."""
    with ProgressDisplay() as display:
        display.begin("listing")
        clock[0] += 11
        display.show(5)
        display.show(7)
        display.begin("sending", 7)
        display.show(7)
    assert told() == ["listing: 5", "listing: 7", "sending: 7 of 7"]


def test_a_speed_is_of_the_last_seconds_and_of_bytes_where_they_are_known(told, clock):
    """What was done before, by a former run, is no speed."""
    with ProgressDisplay(ProgressStyle.LOG) as display:
        display.begin("sending", 5_000)
        display.show(4_000, size=0)
        for second in range(20):
            clock[0] += 1
            display.show(4_000 + second * 20, size=second * 1_000_000)
    assert told()[-1] == "sending: 4,380 of 5,000, 20/s 1.0 MB/s"


def test_a_run_on_a_cluster_tells_of_its_parts_and_lost_workers(told, clock):
    with FleetDisplay(ProgressStyle.LOG, quiet=False) as display:
        display.begin("enrolling")
        nothing = dict.fromkeys(("listed", "pending", "ambiguous", "bad_rows", "added", "added_bytes"), 0)
        counts = {"done": 20, "failed": 3, "collapsed": 1, "rows": 100, "parts": 8, "parts_done": 2, "losses": 1}
        summary = FleetSummary(phase="sending", codes={}, seconds=1.0, away=None, **{**nothing, **counts})
        display.show_parts(summary)
    assert told() == ["enrolling: 24 of 100, 3 failed, 2 of 8 parts, 1 workers lost"]


@pytest.mark.parametrize("style", [ProgressStyle.NEVER, ProgressStyle.LOG, ProgressStyle.BAR])
def test_quietly_nothing_is_shown_whatever_is_asked_for(told, clock, style):
    with ProgressDisplay(style, quiet=True) as display:
        display.begin("drawing", 2)
        clock[0] += 60
        display.show(1)
    assert told() == []


@pytest.fixture
def people(tmp_path):
    for place in ("people/ada/1.jpg", "probes/ada.jpg"):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_bytes(draw_portrait(0, size=120))


COMMANDS = {
    "draw": (("draw", "drawn", "--people", "1", "--faces", "1"), "drawing: 1 of 1"),
    "demo": (("demo", "--people", "1", "--faces", "1", *FAST), "recognizing: 4 of 4"),
    "enroll": (("enroll", "people", "-g", "staff", *FAST), "sending: 1 of 1"),
    "identify": (("identify", "probes", "-g", "staff", "--threshold", "0", *FAST), "recognizing: 1 of 1"),
    "copy-db": (("copy-db", "faces.db", "copy.db"), "copying faces: 1"),
    "backup-db": (("backup-db", "backup.db"), "copying faces: 1"),
}


@pytest.mark.usefixtures("people")
def test_every_long_command_shows_it_in_the_way_that_is_asked_for(say):
    """The result is the same one, and stands on standard output alone."""
    for command, line in COMMANDS.values():
        for style, shown in (("log", [line]), ("never", []), ("bar", []), (None, [])):
            words = [word.replace("copy.db", f"{style}.db").replace("backup.db", f"{style}-too.db") for word in command]
            said = say(*words, *(() if style is None else ("--progress", style)))
            assert said.code == 0, said.err
            assert [told for told in said.err.splitlines() if line in told] == [f"face-async: {one}" for one in shown]
            assert ("━" in said.err) == (style == "bar"), (command, style)
            assert "━" not in said.out


def test_there_are_three_ways(say):
    said = say("draw", "drawn", "--progress", "loudly")
    assert said.code == 2
    assert "never" in said.err
