"""Object storage for tests: moto's server for S3 in a thread of this process, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import logging
from importlib import import_module
from pathlib import Path

import httpx

from face_async.ingest.objects import ObjectFolder

SECRET = "canary-of-the-storage"
BUCKET = "faces"


def environment_of_storage(endpoint):
    return {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


@contextlib.contextmanager
def s3_server():
    """Run moto with one bucket; yield its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = import_module("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield endpoint
    finally:
        server.stop()


def upload(folder: Path, url):
    """Put all files below a folder below a URL."""
    target = ObjectFolder(url)
    for path in folder.rglob("*"):
        if path.is_file():
            target.put(path.relative_to(folder).as_posix(), path)


def contents(url):
    """Return all objects below a URL by their names."""
    folder = ObjectFolder(url)
    return {name: folder.get(name) for name, _ in folder.names()}
