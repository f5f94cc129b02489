"""What the tests of ingestion share: folders of toy pictures, a server, a network that loses things, and the oracle."""

from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
from doubles import CREDENTIALS
from serverkit import ToyRecognizer, picture
from timing import PATIENCE

from face_async import FaceSession, RetryPolicy, ServiceLimits
from face_async.server import Store, create_app

APPID, BUCKET = "123456", "test"


class Recognizer(ToyRecognizer):
    """Takes pictures of any size: blanks behind one are no part of it."""

    def find_face(self, picture):
        return super().find_face(picture.rstrip(b" "))


RECOGNIZER = Recognizer()


def write_people(root: Path, persons: int, shots: int, *, first: int = 0) -> Path:
    """Make a folder of persons: every picture is another face, and says whose and which it is."""
    for person in range(first, first + persons):
        folder = root / f"person{person}"
        folder.mkdir(parents=True)
        for shot in range(shots):
            (folder / f"{shot:02}.jpg").write_bytes(picture(person, shot))
    return root


def enrolled(store: Store) -> dict[str, dict[int, str]]:
    """Return what the server has: of every person the shots, and the id of each one's face."""
    found: dict[str, dict[int, str]] = {}
    for group_id in store.group_ids(APPID):
        for person_id in store.person_ids(APPID, group_id):
            face_ids = store.face_ids(APPID, person_id)
            embeddings = store.embeddings(APPID, person_id, RECOGNIZER)
            shots = {int(embedding[1]): face for embedding, face in zip(embeddings, face_ids, strict=True)}
            assert len(shots) == len(face_ids), f"{person_id} has a picture twice"
            found[person_id] = shots
    return found


def told(units) -> dict[str, dict[int, str]]:
    """Return what finished units say, in the same shape; a shot is told by the file's content."""
    found: dict[str, dict[int, str]] = {}
    for unit in units:
        if unit.state == "done":
            shot = int(re.search(r"shot (\d+)", Path(unit.source).read_text())[1])
            found.setdefault(unit.person_id, {})[shot] = unit.face_id
    return found


class Network(httpx.AsyncBaseTransport):
    """Carries requests to the application, unless ``plan`` has something else to happen to the next one.

    ``plan`` gets the endpoint's name and returns ``""``, ``"refuse"`` (nothing arrives), ``"lose"`` (the answer is lost
    on its way back), or an answer's code; it may be asynchronous. ``body`` is the latest request's.
    """

    def __init__(self, app, plan=lambda name: ""):
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.plan = plan
        self.calls: list[str] = []
        self.body = b""

    async def handle_async_request(self, request):
        name = request.url.path.rpartition("/")[2]
        self.calls.append(name)
        self.body = await request.aread()
        fault = self.plan(name)
        if inspect.isawaitable(fault):
            fault = await fault
        await anyio.lowlevel.checkpoint()
        if fault == "refuse":
            raise httpx.ConnectError("refused by the test")
        if isinstance(fault, int):
            return httpx.Response(200, json={"code": fault, "message": "", "data": {}})
        response = await self._inner.handle_async_request(request)
        if fault == "lose":
            await response.aread()
            raise httpx.ReadError("lost by the test")
        return response


@contextlib.asynccontextmanager
async def serving(store: Store, *, plan=lambda name: "", limits=ServiceLimits(), appid=APPID, **options):  # noqa: B008 - frozen
    """Yield a session on an application over the store, and the network between the two."""
    network = Network(create_app(store, credentials=CREDENTIALS, recognizer=RECOGNIZER, limits=limits), plan)
    options = {"retry": RetryPolicy(max_attempts=2, base_delay=0), **options}
    async with FaceSession(
        appid, BUCKET, CREDENTIALS, base_url="http://localhost", transport=network, limits=limits, **options
    ) as session:
        yield session, network


async def outcomes(run):
    async with run:
        return [unit async for unit in run]


async def finished(run):
    with anyio.fail_after(5 * PATIENCE):  # a run waits for its service as long as it takes: a broken test must not
        async with run:
            return await run.finish()
