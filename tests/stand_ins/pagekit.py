"""The page before a server on a socket, and a browser that has opened it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import anyio.from_thread
from serverkit import APPID, BUCKET, CREDENTIALS

from face_async import FaceSession
from face_async.portraits import draw_portrait
from face_async.server import Account, Store, create_app, serve_in_background
from face_async.server.page import Page, PageAccess

ACCOUNT = Account(APPID, (BUCKET,), CREDENTIALS)
MOST_SECONDS = 20.0


@dataclass
class ServedPage:
    """A page that is served, and the faces behind it, from synchronous code."""

    url: str
    access: PageAccess
    portal: anyio.from_thread.BlockingPortal
    links: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "FACE_ASYNC_BASE_URL": self.url,
            "FACE_ASYNC_APPID": APPID,
            "FACE_ASYNC_BUCKET": BUCKET,
            "FACE_ASYNC_SECRET_ID": CREDENTIALS.secret_id,
            "FACE_ASYNC_SECRET_KEY": CREDENTIALS.secret_key,
        }

    def ask(self, verb: str, *arguments: object, **keywords: object):
        """Call the server as any program does."""

        async def call():
            async with FaceSession(APPID, BUCKET, CREDENTIALS, base_url=self.url) as session:
                return await getattr(session, verb)(*arguments, **keywords)

        return self.portal.call(call)

    def enroll(self, person_id: str, number: int, *, group: str = "staff", name: str = "") -> None:
        """Create a person with the portrait of this number."""
        self.ask("new_person", person_id, [group], draw_portrait(number), person_name=name)


@contextlib.contextmanager
def served_page(**options: object) -> Iterator[ServedPage]:
    """Serve the page before an application that is made with these options."""
    with Store() as store, anyio.from_thread.start_blocking_portal() as portal:
        app = create_app(store, **({"credentials": [ACCOUNT], "recognizer": "fingerprint", "metrics": True} | options))
        access = PageAccess()
        page = Page(app, store, lambda: ACCOUNT, access)
        with portal.wrap_async_context_manager(serve_in_background(page)) as server:
            served = ServedPage(server.base_url, access, portal)
            access.announce(served.links.append)
            yield served


def expect(found):
    """Wait until something in a tab is as it should be."""
    from playwright import sync_api  # noqa: PLC0415 - of an extra

    return sync_api.expect(found)


def open_link(tab, served: ServedPage) -> None:
    """Open the page by its newest link, and wait until that has led on to the first view."""
    tab.goto(served.links[-1])
    tab.wait_for_url("**/ui/identify")


def verdict_in(tab):
    return tab.locator("#faces .verdict")


def open_person(tab, group: str, title: str | re.Pattern[str]):
    """Open the dialog of a person, and return it."""
    tab.goto("/ui/people")
    tab.get_by_role("button", name=re.compile(f"^{group}")).click()
    tab.get_by_role("button", name=title).click()
    return tab.get_by_role("dialog")
