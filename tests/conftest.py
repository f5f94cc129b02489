"""What every test may ask for: both event loops, a printed seed, and whether to count in full."""

from __future__ import annotations

import random

import hypothesis
import pytest

DEFAULT_SEED = 20_190_621

# Examples come from the test's own text, so that a run says the same twice; nothing is kept between runs.
hypothesis.settings.register_profile("short", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("full", derandomize=True, database=None, deadline=None, max_examples=5_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("face_async")
    group.addoption("--seed", type=int, default=DEFAULT_SEED, help=f"seed of the fixture rng (default {DEFAULT_SEED})")
    group.addoption("--full", action="store_true", help="run the long tests at their full counts")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("full" if config.getoption("--full") else "short")


def pytest_report_header(config: pytest.Config) -> str:
    counts = "full" if config.getoption("--full") else "short (--full for full counts)"
    return f"face_async: seed {config.getoption('--seed')} (--seed N), counts {counts}"


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each test marked ``anyio`` runs on both."""
    return request.param


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether long tests run at full counts: ``rounds = 10_000 if full else 200``."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed in the report's header."""
    return request.config.getoption("--seed")


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Return a generator of its own for each test, seeded alike."""
    return random.Random(seed)
