"""What the tests of pictures share: a session at a raw server, and what a body brought there."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

from doubles import CREDENTIALS, envelope
from python_multipart import MultipartParser
from timing import PATIENCE

from face_async import FaceSession, RetryPolicy

FOUND = envelope({"candidates": []})
LARGE_SIZE = 1_400_000


def session_at(server, **options):
    options = {"retry": RetryPolicy(base_delay=0), **options}
    return FaceSession("123456", "test", CREDENTIALS, base_url=server.url, **options)


@contextmanager
def silent_pipe():
    """A file object that delivers nothing; it ends with the block, or after PATIENCE, so that nothing hangs."""
    read, write = os.pipe()
    ends = [write]
    patience = threading.Timer(PATIENCE, lambda: os.close(ends.pop()))
    patience.daemon = True
    patience.start()
    with os.fdopen(read, "rb") as file:
        try:
            yield file
        finally:
            patience.cancel()
            for end in ends:
                os.close(end)


def contents(headers, body):
    """Return the contents of the pictures in a multipart body, in their order."""
    pieces, found = [], []
    parser = MultipartParser(
        dict(part.strip().split("=") for part in headers["content-type"].split(";")[1:])["boundary"],
        {
            "on_part_begin": pieces.clear,
            "on_header_value": lambda data, start, end: pieces.append(data[start:end] + b"\n"),
            "on_headers_finished": lambda: pieces.append(b"\0"),
            "on_part_data": lambda data, start, end: pieces.append(data[start:end]),
            "on_part_end": lambda: found.append(b"".join(pieces)),
        },
    )
    parser.write(body)
    parser.finalize()
    return [content for head, _, content in (part.partition(b"\0") for part in found) if b"filename" in head]
