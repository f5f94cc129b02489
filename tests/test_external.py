"""Tests that need other programs: skipped where those are missing, and failed where those must be there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
markers = external(*programs): needs programs
addopts = -p no:xdist -rs
asyncio_default_fixture_loop_scope = function
"""

TESTS = """
import pytest

@pytest.mark.external("python3")
def test_with_a_program_that_is_there(): ...

@pytest.mark.external("python3", "no-such-program")
def test_with_a_program_that_is_not_there(): ...

def test_without_programs(): ...
"""


@pytest.fixture
def run(pytester):
    """Return a function that runs such tests with these options, beside our conftest.py."""
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text("utf-8"))
    pytester.makeini(INI)
    pytester.makepyfile(TESTS)
    return pytester.runpytest_inprocess


def test_where_a_program_is_missing_its_tests_are_skipped(run):
    """The others are run, and the reason names the program."""
    result = run()
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*needs no-such-program, not found on the PATH"])


def test_where_every_program_must_be_there_a_skip_is_a_failure(run):
    """As in continuous integration, which installs them."""
    result = run("-m", "external", "--no-skips")
    result.assert_outcomes(passed=1, errors=1, deselected=1)
    result.stdout.fnmatch_lines(["*in spite of --no-skips: *needs no-such-program*"])
