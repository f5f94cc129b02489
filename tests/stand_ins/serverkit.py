"""What the server's tests speak with: plain httpx, signatures by the document's formula, multipart by hand."""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.server
import itertools
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import anyio.from_thread
import httpx
import numpy as np
from timing import PATIENCE

from face_async import FaceSession, ServiceLimits
from face_async.server import Certificate, ConnectionLimits, Face, Store, create_app, serve_in_background
from face_async.server.refusal import Refusal
from face_async.signature import Credentials

APPID, BUCKET = "123456", "test"
CREDENTIALS = Credentials("AKIDexampleSecretId", "exampleSecretKey")
LIMITS = ServiceLimits()
MAGIC = b"BM"  # makes a picture of what follows, for those who look at its first bytes alone
BOUNDARY = "--------------acebdf13572468"

_nonces = itertools.count(1)


class ToyRecognizer:
    """Sees who a ``picture()`` shows, in other bytes person 0: 10 less similar a person apart, 2 a shot."""

    name = "toy"
    closed = 0

    def find_face(self, picture: bytes) -> Face:
        picture = picture.removeprefix(MAGIC)
        for word, code in ((b"nobody", -1101), (b"broken", -1102), (b"GIF8", -1400)):
            if picture.startswith(word):
                raise Refusal(code)
        if picture == b"crash":
            raise RuntimeError("a fault in the recognizer that no client may read of")
        match = re.fullmatch(rb"person (\d+) shot (\d+)", picture)
        person, shot = (int(match[1]), int(match[2])) if match else (0, 0)
        return Face(
            x=44, y=33, width=64.0, height=64.5, gender=99, age=37, expression=6, glass=True, pitch=5, yaw=6, roll=0,
            embedding=np.array([person, shot], dtype=np.float32),
        )  # fmt: skip

    def similarities(self, probe, gallery):
        apart = np.abs(gallery.astype(np.float64) - probe)
        return np.maximum(0.0, 100.0 - 10.0 * apart[:, 0] - 2.0 * apart[:, 1])

    def close(self) -> None:
        self.closed += 1


class SlowRecognizer(ToyRecognizer):
    """Looks at each picture until it is told to go on, and counts them."""

    def __init__(self):
        self.seen = []
        self.go = threading.Event()

    def find_face(self, content):
        self.seen.append(content)
        assert self.go.wait(PATIENCE)
        return super().find_face(content)


def picture(person: int, shot: int = 0) -> bytes:
    return MAGIC + f"person {person} shot {shot}".encode()


def signed(original: str, key: str = CREDENTIALS.secret_key) -> str:
    raw = original.encode()
    return base64.b64encode(hmac.digest(key.encode(), raw, "sha1") + raw).decode()


def authorization(
    appid: str = APPID,
    bucket: str = BUCKET,
    credentials: Credentials = CREDENTIALS,
    now: float | None = None,
    lifetime: int = 300,
) -> str:
    at = int(time.time() if now is None else now)
    return signed(
        f"a={appid}&b={bucket}&k={credentials.secret_id}&e={at + lifetime}&t={at}&r={next(_nonces)}&u=0&f=",
        credentials.secret_key,
    )


def part(name: str, content: bytes | str, *, filename: str | None = None, headers: tuple[str, ...] = ()) -> bytes:
    """One multipart part with any headers beside its Content-Disposition."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    raw = content.encode() if isinstance(content, str) else content
    return "\r\n".join([disposition, *headers, "", ""]).encode() + raw


def multipart(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    delimiter = b"--" + BOUNDARY.encode()
    return b"".join(delimiter + b"\r\n" + each + b"\r\n" for each in parts) + delimiter + end


def compare(first: bytes, second: bytes) -> bytes:
    """A whole request for a comparison."""
    body = multipart(part("appid", APPID), part("bucket", BUCKET), part("imageA", first), part("imageB", second))
    head = (
        f"POST /face/compare HTTP/1.1\r\nHost: server\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\nAuthorization: {authorization()}\r\n\r\n"
    )
    return head.encode() + body


class Caller:
    """Calls endpoints and returns (code, data) of their envelopes, which it checks."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.sign = authorization

    async def post(self, name: str, body: bytes, content_type: str, **headers: str) -> tuple[int, dict]:
        sent = {"Content-Type": content_type, "Authorization": self.sign()} | headers
        response = await self.client.post(f"/face/{name}", content=body, headers=sent)
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert int(response.headers["content-length"]) == len(response.content)
        envelope = response.json()
        assert set(envelope) == {"data", "code", "message"}
        assert (envelope["message"] == "OK") == (envelope["code"] == 0)
        return envelope["code"], envelope["data"]

    async def json(self, name: str, **fields: object) -> tuple[int, dict]:
        body = json.dumps({"appid": APPID, "bucket": BUCKET} | fields).encode()
        return await self.post(name, body, "application/json")

    async def multipart(self, name: str, *parts: bytes) -> tuple[int, dict]:
        body = multipart(part("appid", APPID), part("bucket", BUCKET), *parts)
        return await self.post(name, body, f"multipart/form-data; boundary={BOUNDARY}")

    async def ok(self, name: str, *parts: bytes, **fields: object) -> dict:
        """Call with parts, or with JSON fields, and return the data of an answer that must be a success."""
        code, data = await (self.multipart(name, *parts) if parts else self.json(name, **fields))
        assert code == 0
        return data

    async def new_person(self, person_id: str, *groups: str, image: bytes | None = None, **texts: str) -> dict:
        """Create a person, by multipart if there is a picture."""
        if image is None:
            return await self.ok("newperson", person_id=person_id, group_ids=groups or ("staff",), **texts)
        named = [part(f"group_ids[{index}]", group) for index, group in enumerate(groups or ("staff",))]
        extra = [part(name, text) for name, text in texts.items()]
        return await self.ok("newperson", part("person_id", person_id), *named, *extra, part("image", image))

    async def add_faces(self, person_id: str, *images: bytes, tag: str = "") -> dict:
        named = [part(f"images[{index}]", image) for index, image in enumerate(images)]
        return await self.ok("addface", part("person_id", person_id), part("tag", tag), *named)


@contextlib.asynccontextmanager
async def calling(store: Store, **options: object):
    """Call an application in process, made with these options."""
    app = create_app(store, **({"credentials": CREDENTIALS, "recognizer": ToyRecognizer()} | options))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        yield Caller(client)


@contextlib.contextmanager
def web(folder: Path):
    """Serve a folder's files over http, for the application to fetch; yields the server's host and port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def on_a_socket(limits: ConnectionLimits | None = None, certificate: Certificate | None = None, **options: object):
    """Serve an application, made with these options, from synchronous code; yields its host and port."""
    with Store() as store, anyio.from_thread.start_blocking_portal() as portal:
        app = create_app(store, **({"credentials": CREDENTIALS, "recognizer": "fingerprint"} | options))
        serving = serve_in_background(app, limits=limits or ConnectionLimits(), certificate=certificate)
        with portal.wrap_async_context_manager(serving) as server:
            yield f"127.0.0.1:{server.port}"


@contextlib.asynccontextmanager
async def served(limits: ServiceLimits = LIMITS, *, count: int = 1, credentials: Credentials = CREDENTIALS):
    """Yield so many sessions, which know nothing of each other, with one application in process."""
    with Store() as store:
        app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer(), limits=limits)
        async with contextlib.AsyncExitStack() as stack:
            options = {"base_url": "http://localhost", "transport": httpx.ASGITransport(app), "limits": limits}
            sessions = [FaceSession(APPID, BUCKET, credentials, **options) for _ in range(count)]
            yield [await stack.enter_async_context(session) for session in sessions]


class Connection:
    """A socket to a server, in a worker thread; with a context it begins by a TLS handshake."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes:
        """Return the next answer, b"" when the connection ends without one."""
        try:
            while b"\r\n\r\n" not in self.received:
                self._receive()
            head = self.received[: self.received.index(b"\r\n\r\n") + 4]
            size = len(head) + int(re.search(rb"content-length: *(\d+)", head.lower())[1])
            while len(self.received) < size:
                self._receive()
        except OSError:
            return b""
        answer, self.received = self.received[:size], self.received[size:]
        return answer

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError
        self.received += data

    def is_open(self) -> bool:
        """Return whether the server has not ended the connection; an answer must have been read."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(PATIENCE)


async def until(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - threads have no event to tell
            await anyio.sleep(0.001)


PROGRAM = """
import sys
from face_async.server import Store, create_app, serve
from face_async.signature import Credentials
with Store(sys.argv[1]) as store:
    credentials = Credentials("AKIDexampleSecretId", "exampleSecretKey")
    app = create_app(store, credentials=credentials, recognizer="fingerprint")
    serve(app, port=0, on_ready=lambda base_url: print(base_url, flush=True))
print("closed", flush=True)
"""


@contextlib.contextmanager
def program(path):
    """A server in a process of its own; yields the process and its base URL."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def new_person(client: httpx.Client, person_id: str) -> int:
    body = {"appid": "123456", "bucket": "test", "person_id": person_id, "group_ids": ["staff"]}
    headers = {"Authorization": authorization()}
    return client.post("/face/newperson", json=body, headers=headers).json()["code"]


GET_GROUPS = json.dumps({"appid": APPID, "bucket": BUCKET}).encode()


def head(*further: str, signature: str = "") -> bytes:
    lines = ["POST /face/getgroupids HTTP/1.1", "Host: server", "Content-Type: application/json", *further]
    return "\r\n".join([*lines, f"Authorization: {signature or authorization()}", "", ""]).encode()


def whole(*further: str) -> bytes:
    return head(f"Content-Length: {len(GET_GROUPS)}", *further) + GET_GROUPS
