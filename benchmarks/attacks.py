"""What strangers and hostile clients do to a server, while an honest one makes its calls.

Each attack is a function of a :class:`Target`, and returns a remark.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import sqlite3
import struct
import time
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from clients import ADDFACE, APPID, BUCKET, IDENTIFY, form_body, signature
from honest import PATIENCE, honest_call
from PIL import Image
from processes import Child, script
from report import MB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from served import Server

    Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

DRIP = 2.0
UPLOAD = 1_400_000


@dataclass
class Target:
    """A server under attack.

    Attributes:
        server: The server.
        database: Its database.
        item: What honest calls are made with.
        share: 1 for the whole attack, less for a part of it.
        seconds: How long an attack goes on that has no end of its own.
        held: Connections that stay open until the server has stopped.
    """

    server: Server
    database: Path
    item: str
    share: float
    seconds: float
    held: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = field(default_factory=list)

    def count(self, whole: int) -> int:
        """Return how many of something the attack has."""
        return max(1, round(whole * self.share))

    async def connect(self, start: bytes) -> Connection:
        """Open a connection and begin a request."""
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        writer.write(start)
        return reader, writer

    async def exchange(self, request: bytes) -> bytes:
        """Send a request, and return what comes until the connection ends, or for a while."""
        answer = b""
        with contextlib.suppress(OSError):
            reader, writer = await self.connect(request)
            async with asyncio.timeout(PATIENCE):
                while chunk := await reader.read(65_536):
                    answer += chunk
                    if b'"message"' in answer:
                        break
            writer.close()
        return answer

    async def hold(self, count: int, start: bytes, more: bytes = b"") -> str:
        """Open connections, send more on each of them now and then, and tell how many the server has not closed."""
        for _ in range(count):
            with contextlib.suppress(OSError):
                reader, writer = await self.connect(start)
                self.held.append((asyncio.create_task(ended(reader)), writer))
        began = time.perf_counter()
        while time.perf_counter() - began < self.seconds and not all(gone.done() for gone, _ in self.held):
            for _, writer in self.held:
                writer.write(more)
            await asyncio.sleep(min(DRIP, self.seconds))
        left = sum(not gone.done() for gone, _ in self.held)
        return f"{left} of {count} open after {time.perf_counter() - began:.0f} s"


async def ended(reader: asyncio.StreamReader) -> None:
    """Return once the server has closed a connection, whatever it has answered before."""
    with contextlib.suppress(OSError):
        while await reader.read(65_536):
            pass


def head(path: str, *headers: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: server", *headers, "", ""]).encode()


def form(path: str, name: str, *contents: bytes, **fields: str) -> bytes:
    """Return a signed request with pictures."""
    boundary, body = form_body({"appid": APPID, "bucket": BUCKET, **fields}, name, contents[0])
    end = f"\r\n--{boundary}--\r\n".encode()
    for number, content in enumerate(contents[1:], 1):
        disposition = f'Content-Disposition: form-data; name="{name.replace("0", str(number))}"; filename="a.jpg"'
        body = body.removesuffix(end) + f"\r\n--{boundary}\r\n{disposition}\r\n\r\n".encode() + content + end
    media_type = f"Content-Type: multipart/form-data; boundary={boundary}"
    return head(path, f"Authorization: {signature()}", media_type, f"Content-Length: {len(body)}") + body


@cache
def lossless(side: int, number: int) -> bytes:
    """Return a square WebP of one color: 2 KB for 50 million pixels."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number, 80, 90)).save(file, "WEBP", lossless=True, method=0)
    return file.getvalue()


def tall(height: int, number: int) -> bytes:
    """Return a PNG that is one pixel wide: 100 KB for 50 million rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, number]) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bombs(target: Target, count: int) -> list[bytes]:
    """Return so many lossless pictures, none twice."""
    content = lossless(round(7_071 * target.share**0.5), 1)
    return [content + str(number).encode() for number in range(target.count(count))]


async def pictures_in_one(target: Target) -> str:
    """20 lossless pictures of 50 million pixels in one addface."""
    began = time.perf_counter()
    answer = await target.exchange(form(ADDFACE, "images[0]", *bombs(target, 20), person_id="spare0"))
    return f"{answer[-70:].decode(errors='replace')} after {time.perf_counter() - began:.1f} s"


async def pictures_at_once(target: Target) -> str:
    """16 identifications of such a picture at once."""
    requests = [form(IDENTIFY, "image", each, group_id="staff") for each in bombs(target, 16)]
    began = time.perf_counter()
    await asyncio.gather(*map(target.exchange, requests))
    return f"answered after {time.perf_counter() - began:.1f} s"


async def tall_pictures(target: Target) -> str:
    """4 identifications of pictures that are one pixel wide, and 50 million high."""
    content = tall(target.count(50_000_000), 1)
    requests = [form(IDENTIFY, "image", content + bytes([number]), group_id="staff") for number in range(4)]
    began = time.perf_counter()
    await asyncio.gather(*map(target.exchange, requests))
    return f"answered after {time.perf_counter() - began:.1f} s"


async def hanging_up(target: Target) -> str:
    """20 lossless pictures in one addface, whose caller hangs up after a second."""
    _, writer = await target.connect(form(ADDFACE, "images[0]", *bombs(target, 20), person_id="spare1"))
    await asyncio.sleep(1)
    writer.close()
    before = target.server.computed()
    seconds, _ = await honest_call(target.server.base_url, "identify", target.item)
    return f"the next call took {seconds:.1f} s, {target.server.computed() - before:.1f} s of computing"


async def half_heads(target: Target) -> str:
    """1,100 connections that begin the head of a request, unsigned, and go on a byte at a time."""
    return await target.hold(target.count(1_100), b"POST /face/identify HTTP/1.1\r\nX-Long: ", b"a")


async def half_bodies(target: Target) -> str:
    """500 signed requests whose bodies go on a byte at a time."""
    start = head(IDENTIFY, f"Authorization: {signature()}", "Content-Type: application/json", "Content-Length: 100000")
    return await target.hold(target.count(500), start, b" ")


async def stopped_uploads(target: Target) -> str:
    """200 signed uploads of 1.4 MB that stop at 93 %."""
    boundary, body = form_body({"appid": APPID, "bucket": BUCKET, "group_id": "staff"}, "image", bytes(UPLOAD))
    media_type = f"Content-Type: multipart/form-data; boundary={boundary}"
    start = head(IDENTIFY, f"Authorization: {signature()}", media_type, f"Content-Length: {len(body)}")
    return await target.hold(target.count(200), start + body[: len(body) * 93 // 100])


async def endless_body(target: Target) -> str:
    """An unsigned body in chunks without an end."""
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    _, writer = await target.connect(head(IDENTIFY, "Transfer-Encoding: chunked"))
    began, sent = time.perf_counter(), 0
    with contextlib.suppress(OSError):
        while time.perf_counter() - began < target.seconds and not writer.is_closing():
            writer.write(chunk)
            async with asyncio.timeout(target.seconds):
                await writer.drain()
            sent += len(chunk)
    writer.close()
    return f"{sent / MB:,.0f} MB taken in {time.perf_counter() - began:.1f} s"


async def flood(target: Target, start: bytes, more: bytes, connections: int = 4) -> str:
    """Send requests over some connections at once, again and again, each for as long as the server takes it."""
    began, opened, sent = time.perf_counter(), 0, 0

    async def one() -> None:
        nonlocal opened, sent
        while time.perf_counter() - began < target.seconds:
            with contextlib.suppress(OSError):
                reader, writer = await target.connect(start)
                opened += 1
                gone = asyncio.create_task(ended(reader))
                while not gone.done() and time.perf_counter() - began < target.seconds:
                    writer.write(more)
                    await asyncio.wait_for(writer.drain(), target.seconds)
                    sent += len(more)
                    await asyncio.sleep(0)  # a drain that need not wait lets nothing be read
                gone.cancel()
                writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return f"{opened:,} connections, {sent / MB:,.1f} MB in {time.perf_counter() - began:.0f} s"


async def tiny_chunks(target: Target) -> str:
    """A flood of signed bodies in chunks of one byte."""
    start = head(IDENTIFY, f"Authorization: {signature()}", "Content-Type: text/plain", "Transfer-Encoding: chunked")
    return await flood(target, start, b"1\r\nx\r\n" * 10_000)


async def long_headers(target: Target) -> str:
    """A flood of requests with an Authorization of 105 KB."""
    start = head(IDENTIFY, f"Authorization: {signature() + 'A' * 105_000}", "Content-Length: 0")
    return await flood(target, start, start)


async def locked_file(target: Target) -> str:
    """Another process holds the database's write lock; four clients write."""
    began = time.perf_counter()
    db = sqlite3.connect(target.database, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    body = f'{{"appid": "{APPID}", "bucket": "{BUCKET}", "person_id": "person0", "tag": "a"}}'.encode()
    headers = f"Authorization: {signature()}", "Content-Type: application/json", f"Content-Length: {len(body)}"
    writes = [asyncio.create_task(target.exchange(head("/face/setinfo", *headers) + body)) for _ in range(4)]
    _, pending = await asyncio.wait(writes, timeout=max(target.seconds, 1))
    waited = time.perf_counter() - began
    db.execute("ROLLBACK")
    db.close()
    await asyncio.gather(*writes)
    return f"{len(writes) - len(pending)} of {len(writes)} writes had ended after {waited:.0f} s"


Attack: TypeAlias = "Callable[[Target], Awaitable[str]]"
ATTACKS: tuple[Attack, ...] = (
    pictures_in_one, pictures_at_once, tall_pictures, hanging_up, half_heads, half_bodies, stopped_uploads,
    endless_body, tiny_chunks, long_headers, locked_file,
)  # fmt: skip


async def attacked(attack: Attack, target: Target) -> dict[str, Any]:
    """Return what an attack did: times in ms, memory in MB."""
    honest = Child(script("honest.py", target.server.base_url, *target.item.split()))
    try:
        honest.ask()
        before = target.server.resident()
        target.server.forget_peak()
        remark = await attack(target)
        growth = target.server.peak() - before
        found = json.loads(await asyncio.to_thread(honest.ask, "over"))
    finally:
        honest.close()
    began = time.perf_counter()
    await asyncio.to_thread(target.server.child.stop)
    for gone, writer in target.held:
        gone.cancel()
        writer.close()
    return {
        "attack": attack.__name__,
        "growth_mb": growth / MB,
        "worst_ms": 1e3 * max(found["times"], default=math.nan),
        "calls": len(found["times"]),
        "failed": found["failed"],
        "stop_s": time.perf_counter() - began,
        "lines": len(target.server.child.errors().splitlines()),
        "remark": remark,
    }
