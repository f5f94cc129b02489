"""What is served beside the endpoints, for operators: ``/health``, ``/health/live`` and ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from face_async.images.threads import Workers
from face_async.server.operations.health import OK

if TYPE_CHECKING:
    from starlette.requests import Request

    from face_async.server.operations.health import Health
    from face_async.server.operations.metrics import Metrics

_UNAVAILABLE = 503


def operations_routes(health: Health, metrics: Metrics | None) -> list[Route]:
    """Return the routes of one application."""
    # One thread each: whoever asks at the same time waits, and is answered by what the first one found out.
    checks, pages = Workers("server.health", 1), Workers("server.metrics", 1)

    async def live(_: Request) -> Response:
        return JSONResponse({"status": OK})

    async def ready(_: Request) -> Response:
        parts = await checks.run(health.check)
        is_ready = all(state == OK for state in parts.values())
        status = OK if is_ready else "failed"
        return JSONResponse({"status": status, **parts}, 200 if is_ready else _UNAVAILABLE)

    async def page(_: Request) -> Response:
        assert metrics is not None  # noqa: S101 - for the type checker: without metrics there is no such route
        return Response(await pages.run(metrics.page), media_type="text/plain; version=0.0.4")

    routes = [Route("/health/live", live), Route("/health", ready)]
    return [*routes, Route("/metrics", page)] if metrics else routes
