"""What every test may ask for: both event loops, a printed seed, and whether to count in full.

A test meets the real thing wherever that can show what is to be shown: ``face_async.testing.FaceServer``, the server's
application in process, or ``face_async.server.serve_in_background``, the same on a socket. What stands in for it lies
in ``stand_ins``, whose modules every test can import:

==================  ================================================================================================
stand-in            what it is, and when it is used
==================  ================================================================================================
``specification``   The specification's own packets, return codes and signatures (files in ``packets``): golden
                    samples, for whatever reads or writes them.
``verbs``           How a program calls each of the 13 verbs to send those packets, and the result it gets: for what is
                    true of every verb.
``doubles``         ``session_on(*answers)``: a session whose network is a list of answers, and keeps what was sent. For
                    what a client makes of an answer; there are no sockets, and nothing can go wrong on the way.
``raw_server``      A scripted server on plain sockets, in threads: closes, resets, stalls, drips, floods. Only for
                    what no HTTP library would commit.
``faults``          The table of what a server can do wrong, as behaviors for the raw server, and what each means to a
                    client: for what is true of every fault.
``nginxkit``        Debian's nginx before any of these servers, with the directives that a test gives it.
``faultcases``      Which fault of that table meets which verb on which stack.
``transportkit``    For transports: answers, and what a raw server and the kernel know of connections.
``picturekit``      For pictures: a session at a raw server, the pictures that a body brought there, and a file object
                    that delivers nothing.
``stacks``          Fixtures that run a test on every event loop and HTTP library that a session may stand on.
``albums``          ``Album``: the bulk verbs over a dictionary of faces, without requests; it can hold and refuse
                    requests. For packing, the order of outcomes and the ledger.
``bulkkit``         For bulk runs: work that goes on when it is let, and a service whose lists can be held.
``facekit``         For recognizers: drawn people as pictures.
``gallerykit``      For galleries: random faces, and recognizers that compare them.
``serverkit``       For the server's tests, which use none of the client's code: requests and signatures by hand, a
                    recognizer that reads who a picture shows from its bytes, and the application in process.
``pagekit``         The page for people before that application on a socket, for browsers.
``ingestkit``       For ingestion: folders of pictures for that recognizer, and the application behind a network that
                    loses requests or answers by plan; ``enrolled`` tells what really is in the store.
``fleetkit``        For fleets: a server on a socket that counts what is in flight, and the workers of a driver.
``objectkit``       moto's server for S3 in a thread: object storage that a whole run can be in.
``ingestprocesses`` The same client and server as processes of their own, to be killed.
``postgresql``      A PostgreSQL server of our own, to be stopped and killed.
``telemetrykit``    Providers of OpenTelemetry's SDK, in whose memory spans and metrics can be read.
``catalogkit``      What is to be translated, beside the catalog; run by itself, it brings the catalog up to date.
``strict_html``     Reads a page and refuses every tag that is not closed in order.
``timing``          What to do about time: nothing that a test asserts may depend on how busy the machine is.
==================  ================================================================================================

A test that needs a program or a package that a machine may lack says ``@pytest.mark.external("nginx")``, and is skipped
where it is not found. ``pytest -m external --no-skips`` runs these tests alone, and fails where one would be skipped.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import shutil
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import certifi
import hypothesis
import hypothesis.strategies
import pytest

DEFAULT_SEED = 20_190_621

# Examples come from the test's own text, so that a run says the same twice; nothing is kept between runs.
# No health check or deadline looks at the clock: a busy machine is not a fault.
hypothesis.settings.register_profile(
    "short", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("full", hypothesis.settings.get_profile("short"), max_examples=5_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("face_async")
    group.addoption("--seed", type=int, default=DEFAULT_SEED, help=f"seed of the fixture rng (default {DEFAULT_SEED})")
    group.addoption("--full", action="store_true", help="run the long tests at their full counts")
    group.addoption("--no-skips", action="store_true", help="count a test that is skipped as failed")


def pytest_configure(config: pytest.Config) -> None:
    # Whoever starts tests in the background of a script has Ctrl-C ignored, in all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whatever language a developer's machine speaks, commands speak English, but where a test asks for Chinese.
    os.environ["LANGUAGE"] = "en"
    os.environ.pop("FACE_ASYNC_LANG", None)
    # Debian keeps PostgreSQL's programs off the PATH.
    os.environ["PATH"] += "".join(f":{folder}" for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:])
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("full" if config.getoption("--full") else "short")


def pytest_report_header(config: pytest.Config) -> str:
    counts = "full" if config.getoption("--full") else "short (--full for full counts)"
    return f"face_async: seed {config.getoption('--seed')} (--seed N), counts {counts}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = [program for marker in item.iter_markers("external") for program in marker.args]
    if missing := [name for name in needed if shutil.which(name) is None and importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {' and '.join(missing)}, not found on the PATH")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, in spite of --no-skips: {report.longrepr[2]}"
    return report


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each test marked ``anyio`` runs on both."""
    return request.param


@pytest.fixture(scope="session")
def _hypothesis_has_begun() -> None:
    """At its first example it asks the collector what refers to its generator of random numbers."""
    hypothesis.given(hypothesis.strategies.none())(lambda _: None)()


@pytest.fixture(scope="module", autouse=True)
def _the_collector_sees_what_is_new(_hypothesis_has_begun: None) -> None:
    """Leave what was there before out of its work, thousands of collected tests: those that collect wait for it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one of the world's authorities: every client of httpx loads them all, which takes it 25 ms."""
    first = Path(certifi.where()).read_text("ascii").partition("-----END CERTIFICATE-----")
    bundle = tmp_path_factory.mktemp("authorities") / "one.pem"
    bundle.write_text("".join(first[:2]) + "\n", "ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(bundle))
        patch.setenv("SSL_CERT_FILE", str(bundle))
        yield


@pytest.fixture(scope="session", autouse=True)
def _portraits_are_drawn_once() -> Iterator[None]:
    """One takes 30 ms, and the same hundred are asked for more than a thousand times."""
    from face_async import portraits  # noqa: PLC0415 - while this file is imported, coverage measures nothing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portraits, "_draw", cache(portraits._draw))
        yield


@pytest.fixture
def unclosed_files() -> Iterator[None]:
    """For a client that never closes the files that it opens: the collector meets them before the test is over."""
    yield
    gc.collect()


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
