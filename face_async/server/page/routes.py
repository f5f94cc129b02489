"""What a browser asks for: the views, what they are made of, and the calls that they make."""

from __future__ import annotations

import json
from email.utils import formatdate
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING

from attrs import field, frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from face_async.errors import ReturnCode
from face_async.limits import SAME_PERSON, ServiceLimits
from face_async.server.page.access import FORGERY_HEADER, PAGE_ROOT, PageAccess
from face_async.server.page.calls import signed_scope
from face_async.server.page.language import language_of, texts_of_scripts, translations
from face_async.server.refusal import Refusal
from face_async.server.storage.base import StoreError
from face_async.server.storage.failures import FailureLog
from face_async.server.storage.workers import reads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from face_async.server.guard import Account
    from face_async.server.storage.storage import Storage

VIEWS: Mapping[str, str] = {
    "identify": "Identify",
    "people": "People",
    "enroll": "Enroll",
    "compare": "Compare",
    "status": "Status",
}
"""The name of each view in its address -> its title in English."""

_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)

_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Page:
    """An application, and before it the page: an ASGI application of its own.

    Args:
        app: What :func:`~face_async.server.create_app` returned; it gets the page's calls, and all requests that are
            not for the page.
        storage: Has the faces' thumbnails, if any were kept.
        account: Returns the account whose faces the page shows. Its key stays on this side.
        access: Who may use the page.
        limits: The service's limits, for what the page makes of pictures before it sends them.
    """

    def __init__(
        self,
        app: ASGIApp,
        storage: Storage,
        account: Callable[[], Account],
        access: PageAccess,
        *,
        limits: ServiceLimits = ServiceLimits(),
    ) -> None:
        self._app = app
        self._access = access
        self._page = Starlette(routes=_Views(app, storage, account, limits, access).routes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of ASGI."""
        if scope["type"] != "http" or not (scope["path"] == "/" or f"{scope['path']}/".startswith(f"{PAGE_ROOT}/")):
            await self._app(scope, receive, send)
            return
        answer: ASGIApp = self._page
        if not self._access.is_for_us(request := Request(scope)):
            _ = translations(language_of(request)).gettext
            refusal = _(
                "The page is not served under this name: open it by an address, as 127.0.0.1, or a name that --ui-host "
                "allows."
            )
            answer = PlainTextResponse(refusal, 421)
        await answer(scope, receive, _with_headers(send))


def _with_headers(send: Send) -> Send:
    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            had = {name.lower() for name, _ in message["headers"]}
            ours = {**_HEADERS, "Date": formatdate(usegmt=True)}
            added = [(name.lower().encode(), value.encode()) for name, value in ours.items()]
            message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in had)]
        await send(message)

    return send_guarded


def _assets() -> dict[str, bytes]:
    folder = resources.files("face_async.server.page") / "assets"
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@cache
def _templates(language: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("face_async.server.page"),
        autoescape=True,
        extensions=["jinja2.ext.i18n"],
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]  # by the extension
    return environment


@frozen
class _Views:
    app: ASGIApp
    storage: Storage
    account: Callable[[], Account]
    limits: ServiceLimits
    access: PageAccess
    assets: Mapping[str, bytes] = field(factory=_assets)
    failures: FailureLog = field(factory=FailureLog)

    def routes(self) -> list[Route]:
        call = _Calls(self.app, self.account, self.access)
        return [
            Route("/", self.start),
            Route(PAGE_ROOT, self.start),
            Route(f"{PAGE_ROOT}/", self.start),
            Route(f"{PAGE_ROOT}/assets/{{name}}", self.asset),
            Route(f"{PAGE_ROOT}/face/{{endpoint}}", call, methods=["POST"]),
            Route(f"{PAGE_ROOT}/thumbnails/{{face_id}}", self.thumbnail),
            Route(f"{PAGE_ROOT}/{{view}}", self.view),
        ]

    async def start(self, request: Request) -> Response:
        first = f"{PAGE_ROOT}/{next(iter(VIEWS))}"
        if "token" not in request.query_params or request.method == "HEAD":  # which only looks, as mail filters do
            return RedirectResponse(first)
        session = self.access.open(request.query_params["token"])
        if session is None:
            return self._closed(request)
        # No redirect: were the link opened from another site, browsers would not send the cookie after one.
        answer = HTMLResponse(self._text(request, "opened.html", first=first), headers={"Refresh": f"0; url={first}"})
        answer.set_cookie(
            self.access.cookie,
            session,
            path=PAGE_ROOT,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.assets:
            return PlainTextResponse("Not Found", 404)
        media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(self.assets[name], media_type=media_type, headers={"Cache-Control": "no-cache"})

    async def thumbnail(self, request: Request) -> Response:
        if self.access.second_token(request) is None:
            return self._closed(request)
        try:
            face_id = request.path_params["face_id"]
            return Response(
                await reads.run(self.storage.thumbnail, self.account().appid, face_id), media_type="image/jpeg"
            )
        except Refusal:
            return Response(status_code=204)  # none was kept, which is no fault
        except StoreError as error:
            self.failures.log(str(error), f"a thumbnail could not be read: {error}")
            return Response(status_code=503)

    async def view(self, request: Request) -> Response:
        name, token = request.path_params["view"], self.access.second_token(request)
        if name not in VIEWS:
            return PlainTextResponse("Not Found", 404)
        if token is None:
            return self._closed(request)
        settings = self._settings(token, language_of(request))
        return HTMLResponse(self._text(request, f"{name}.html", view=name, views=VIEWS, settings=settings))

    def _settings(self, token: str, language: str) -> str:
        account = self.account()
        meaning = partial(translations(language).pgettext, "library")
        scripts = (content.decode() for name, content in self.assets.items() if name.endswith(".js"))
        settings = {
            "appid": account.appid,
            "bucket": account.buckets[0],
            "calls": f"{PAGE_ROOT}/face/",
            "thumbnails": f"{PAGE_ROOT}/thumbnails/",
            "token": token,
            "tokenHeader": FORGERY_HEADER,
            "samePerson": SAME_PERSON,
            "maxRequestBytes": self.limits.max_request_bytes,
            "maxFaces": self.limits.max_faces_per_person,
            "codes": {int(code): [code.name, meaning(code.meaning)] for code in ReturnCode},
            "texts": texts_of_scripts(scripts, language),
        }
        return json.dumps(settings)

    def _closed(self, request: Request) -> Response:
        return HTMLResponse(self._text(request, "closed.html"), 401)

    def _text(self, request: Request, template: str, **values: object) -> str:
        language = language_of(request)
        return _templates(language).get_template(template).render(root=PAGE_ROOT, language=language, **values)


@frozen
class _Calls:
    """Passes a call of the page on to the application; a class, because Starlette gives such the ASGI connection."""

    app: ASGIApp
    account: Callable[[], Account]
    access: PageAccess

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.access.is_ours(request := Request(scope)):
            _ = translations(language_of(request)).gettext
            refused = PlainTextResponse(_("The page's session has ended, or the call is not the page's own."), 403)
            await refused(scope, receive, send)
            return
        await self.app(signed_scope(scope, scope["path_params"]["endpoint"], self.account()), receive, send)
