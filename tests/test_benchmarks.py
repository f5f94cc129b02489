"""The benchmarks measure what they say, and every client in them sends requests that the real server accepts."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import serverkit
from timing import PATIENCE

from face_async import Credentials, FaceSession
from face_async.portraits import draw_portrait
from face_async.server import Store, create_app, serve_in_background

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MODULES = "clients", "floor", "peers", "goals", "report"
CLIENTS = [
    "face_async", "face_async reqwest", "reqwest on uvloop", "raw asyncio", "pyreqwest alone", "aiohttp",
    "aiohttp on uvloop", "httpx2", "plain httpx", "httpx kept", "qcloud_image",
]  # fmt: skip

# The peers' warnings are their own affair; the vendor's client opens pictures and never closes them.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def benchmarks(monkeypatch):
    """Their modules by name; they are scripts that find each other in their own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "ada-1.jpg"
    path.write_bytes(draw_portrait(1, shot=1))
    return path


@pytest.fixture
def web(photograph):
    """The address at which the server can fetch the same picture."""
    with serverkit.web(photograph.parent) as address:
        yield address


def test_the_list_of_clients_is_complete(benchmarks):
    assert CLIENTS == list(benchmarks["peers"].all_clients())


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_is_understood_by_the_real_server(benchmarks, photograph, web, monkeypatch, name):
    """No peer is measured on a broken request: a small call, an upload, and an added face."""
    clients = benchmarks["clients"]
    kind = benchmarks["peers"].all_clients()[name]
    if reason := kind.missing():
        pytest.skip(reason)
    if name == "qcloud_image":
        monkeypatch.setattr("qcloud_image.conf.Conf._Conf__SERVICE_ADDR", "")  # so that it is put back
    credentials = Credentials(clients.SECRET_ID, clients.SECRET_KEY)

    async def use(client) -> None:
        await client.open()
        try:
            await client.ask(f"http://{web}/{photograph.name}")
            await client.upload(str(photograph))
            await client.add(str(photograph))
        finally:
            await client.aclose()

    async def check(store: Store) -> list[str]:
        app = create_app(store, credentials=credentials, recognizer="fingerprint", url_allow_list=[web])
        async with (
            serve_in_background(app) as server,
            FaceSession(clients.APPID, clients.BUCKET, credentials, base_url=server.base_url) as session,
        ):
            await session.new_person(clients.PERSON, [clients.GROUP], draw_portrait(1))
            await use(kind(server.base_url, in_flight=2))
            return await session.get_face_ids(clients.PERSON)

    with Store() as store:
        assert len(asyncio.run(check(store))) == 2


def test_the_small_call_has_200_bytes(benchmarks):
    clients = benchmarks["clients"]
    assert len(clients.json_body(clients.PICTURE_URL)) == pytest.approx(200, abs=10)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What a very short run of the whole saves."""
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--smoke", "--out", str(out)]
    subprocess.run(
        [*command, "--clients", "face_async,plain httpx,raw asyncio"],
        check=True,
        capture_output=True,
        timeout=10 * PATIENCE,
    )
    return json.loads((out / "results.json").read_text()), (out / "results.md").read_text()


def test_every_row_is_measured(results):
    saved, page = results
    found = {(row["workload"], row["client"]) for row in saved["rows"]}
    workloads = {"small JSON", "upload 100 KB", "bulk add, 60 KB"}
    everywhere = {(load, name) for load in workloads for name in ("face_async", "plain httpx", "raw asyncio")}
    assert found == everywhere | {("bulk add in packs, 60 KB", "face_async")}
    for row in saved["rows"]:
        assert (row["failures"], row["failure"]) == (0, "")
        assert row["calls"] > 0
        assert min(row["cpu_ms"], row["rate"], row["peak_mb"]) > 0
        assert 0 <= row["server_busy"] <= 1.1
        assert row["client"] in page


def test_ratios_are_those_of_the_measured_values(results):
    rows = {(row["workload"], row["client"]): row for row in results[0]["rows"]}
    for (workload, _), row in rows.items():
        base = rows.get((workload, "plain httpx"))
        ratios = {measure: row[measure] / base[measure] if base else None for measure in ("cpu_ms", "rate")}
        assert row["against"]["plain httpx"] == pytest.approx(ratios)
        assert row["against"]["aiohttp"] == {"cpu_ms": None, "rate": None}  # it was not asked for


def test_every_goal_is_listed(results):
    saved, page = results
    assert [f"P{number}" for number in range(1, 9)] == sorted({goal["goal"] for goal in saved["goals"]})
    (imports,) = (goal for goal in saved["goals"] if goal["goal"] == "P7")
    assert imports["measured"] == saved["imports"]["face_async"] / saved["imports"]["httpx, attrs, cattrs"]
    assert imports["first"]["passed"] == (imports["measured"] <= 1.3)
    assert "not measured" in page


def test_rounds_become_medians_and_medians_become_verdicts(benchmarks):
    def samples(*values):
        return [{"cpu_ms": value, "rate": 1000 / value} for value in values]

    rows = benchmarks["report"].summarize(
        {
            ("small JSON", 16, "face_async reqwest"): samples(9.0, 2.0, 1.0),
            ("small JSON", 16, "aiohttp"): samples(4.0),
            ("small JSON", 1000, "face_async reqwest"): samples(3.0),
        }
    )
    assert rows["small JSON", 16, "face_async reqwest"]["against"]["aiohttp"] == {"cpu_ms": 0.5, "rate": 2.0}
    goals = benchmarks["goals"]
    judged = {goal["what"]: goal for goal in goals.judge_all(goals.Results(rows, {}))}
    small = judged["reqwest: CPU of a small call / aiohttp, worst of 16 to 1000 in flight"]
    assert (small["measured"], small["first"]["passed"], small["moonshot"]["passed"]) == (0.5, True, True)
    flat = judged["reqwest: CPU of a small call at 1000 in flight / at 16"]
    assert (flat["measured"], flat["first"]["passed"], flat["moonshot"]["passed"]) == (1.5, True, False)
    assert judged["default: calls a second / aiohttp"]["measured"] is None


def test_recognition_is_measured_on_a_folder_of_people(tmp_path):
    """Drawn ones here; the figures are of the kind that a reader would expect, and the table names each."""
    pytest.importorskip("onnxruntime")
    for person in (2, 3, 4):
        (tmp_path / "people" / str(person)).mkdir(parents=True)
        for shot in (0, 1):
            (tmp_path / "people" / str(person) / f"{shot}.jpg").write_bytes(draw_portrait(person, shot=shot))
    command = [sys.executable, BENCHMARKS / "recognition.py", tmp_path / "people", "--seconds", "0.1"]
    command += ["--json", tmp_path / "figures.json", "--chart", tmp_path / "chart.png"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    told = json.loads((tmp_path / "figures.json").read_text())
    row = told["engines"]["faces"]
    assert (6, 3, 12) == (told["pictures"], row["true_pairs"], row["stranger_pairs"])
    assert 1 == row["found"] == row["rank_1"] == row["rank_1_one_enrolled"] == row["true_90"]
    assert 0 == row["stranger_75"] == row["true_99"]
    assert row["closest_strangers"] > 1
    assert all(row[f"ms_{step}"] > 0 for step in ("decode", "find", "embed", "describe"))
    assert all(f"| {name.replace('_', ' ')} |" in said for name in row)
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
