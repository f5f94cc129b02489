"""Who may use the page: whoever has opened its link; and no other site's page, whatever it sends."""

from __future__ import annotations

import html
import json
import re
import time

import httpx
import pytest
from pagekit import ACCOUNT, served_page
from serverkit import APPID, BUCKET, CREDENTIALS

from face_async.server.page.access import MAX_SESSIONS, SESSION_SECONDS, PageAccess

VIEWS = ["identify", "people", "enroll", "compare", "status"]


@pytest.fixture(scope="module")
def served():
    with served_page() as page:
        yield page


@pytest.fixture
def browser(served):
    """A client that has opened the link."""
    with httpx.Client(base_url=served.url) as client:
        assert client.get(served.links[-1]).status_code == 200
        yield client


def settings(client: httpx.Client) -> dict:
    shown = client.get("/ui/identify").text
    return json.loads(html.unescape(re.search(r'name="settings" content="(.*?)"', shown)[1]))


def groups(client: httpx.Client, **headers: str | None) -> httpx.Response:
    """Call an endpoint as the page's own script does, but for these headers; None leaves one out."""
    own = {
        "Origin": str(client.base_url).rstrip("/"),
        "Sec-Fetch-Site": "same-origin",
        "X-CSRF-Token": settings(client)["token"],
    }
    sent = {name: value for name, value in (own | headers).items() if value is not None}
    return client.post("/ui/face/getgroupids", json={"appid": APPID, "bucket": BUCKET}, headers=sent)


def test_a_link_opens_the_page_once(served):
    """Its cookie is sent to the page alone, shown to no script, and with no request of another site."""
    link = served.links[-1]
    with httpx.Client(base_url=served.url) as first, httpx.Client(base_url=served.url) as second:
        assert "set-cookie" not in first.head(link).headers  # which only looks, and uses nothing up
        cookie = first.get(link).headers["set-cookie"]
        assert {"HttpOnly", "Path=/ui", "SameSite=strict"} <= set(cookie.split("; "))
        assert [first.get(f"/ui/{view}").status_code for view in VIEWS] == [200] * len(VIEWS)
        assert second.get(link).status_code == 401
        assert second.get("/ui/identify").status_code == 401
        assert second.get(served.links[-1]).status_code == 200
    assert served.links[-1] != link


@pytest.mark.parametrize("path", ["/ui/?token=", "/ui/?token=guess", "/ui/?token=%C3%A4", *(f"/ui/{v}" for v in VIEWS)])
def test_without_its_link_the_page_is_closed(served, path):
    answer = httpx.get(served.url + path)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert APPID not in answer.text


def test_the_page_calls_the_endpoints_and_never_has_the_key(browser):
    answer = groups(browser)
    assert (answer.status_code, answer.json()["code"]) == (200, 0)
    for view in VIEWS:
        shown = browser.get(f"/ui/{view}").text
        assert CREDENTIALS.secret_key not in shown
        assert CREDENTIALS.secret_id not in shown


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": None},
        {"X-CSRF-Token": "guess"},
        {"X-CSRF-Token": ""},
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "https://other.example.com"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Cookie": ""},
    ],
    ids=repr,
)
def test_a_forged_call_is_refused(browser, headers):
    """A request that another site's page sends lacks at least one of these."""
    assert groups(browser, **headers).status_code == 403


def test_one_session_s_token_is_no_good_with_another_s_cookie(served, browser):
    with httpx.Client(base_url=served.url) as other:
        other.get(served.links[-1])
        assert groups(browser, **{"X-CSRF-Token": settings(other)["token"]}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1", "a b"]
)
def test_a_name_that_was_made_to_lead_here_gets_nothing(served, browser, host):
    """DNS rebinding: the site's page would be of the same origin, but its requests say its name."""
    for path in ("/ui/", served.links[-1], "/ui/identify", "/ui/assets/api.js", "/"):
        answer = browser.get(path, headers={"Host": host})
        assert answer.status_code in {400, 421}
        assert "settings" not in answer.text
    assert groups(browser, Host=host).status_code in {400, 421}
    assert browser.get(served.links[-1]).status_code == 200  # the link was not used up


@pytest.mark.parametrize("host", ["a.example:8443", "https://a.example", "a.example/", "*.a.example", "ä.example", ""])
def test_what_no_browser_s_host_can_be_is_refused_as_a_name_of_the_page(host):
    """It would be accepted, and the page refused to everybody."""
    with pytest.raises(ValueError, match=r"without scheme, port and path, such as 'faces\.example\.com'"):
        PageAccess([host])


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "localhost", "LOCALHOST:1", "[::1]:8600", "192.0.2.7"])
def test_addresses_and_localhost_are_names_of_the_page(browser, host):
    assert browser.get("/ui/identify", headers={"Host": host}).status_code == 200


def test_every_answer_forbids_whatever_the_page_does_not_need(browser):
    """No script but its own files, nothing from elsewhere, in no frame, kept by no cache."""
    for path in [*(f"/ui/{view}" for view in VIEWS), "/ui/", "/ui/assets/page.css", "/ui/other", "/ui/?token=guess"]:
        headers = browser.get(path).headers
        policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] in {"no-store", "no-cache"}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_made_of_the_server_s_own_files(browser, view):
    """Whatever a view or one of its files names is there; nothing is from another host."""
    to_see, seen = [f"/ui/{view}"], {}
    while to_see:
        path = to_see.pop()
        seen[path] = browser.get(path).text
        named = re.findall(r'(?:src|href)="(/[^"]+)"', seen[path]) if path.count("/") == 2 else []
        imported = [f"/ui/assets/{name}" for name in re.findall(r'from "\./(.+?)"', seen[path])]
        to_see += {name for name in [*named, *imported] if name.startswith("/ui/assets/")} - seen.keys()
    assert len(seen) > 4
    assert all("//" not in text.replace("// ", "").replace("http://www.w3.org/2000/svg", "") for text in seen.values())
    assert not any("innerHTML" in text or "eval(" in text for text in seen.values())


def test_what_is_not_the_page_s_is_the_application_s(served):
    """Signatures are checked as ever, and nothing is open that was not."""
    assert httpx.post(f"{served.url}/face/getgroupids").json()["code"] == 4
    assert httpx.get(f"{served.url}/uix").status_code == 404
    assert served.ask("get_group_ids") == []


@pytest.mark.parametrize("path", ["/metrics", "/health", "/health/live"])
@pytest.mark.parametrize("host", ["face-server.internal:8600", "127.0.0.1"])
def test_operators_programs_need_no_session(served, path, host):
    """Prometheus and a balancer's probe ask by whatever name they know, which need not be one of the page's."""
    answer = httpx.get(f"{served.url}{path}", headers={"Host": host})
    assert answer.status_code == 200
    assert ("face_async_faces" in answer.text) == (path == "/metrics")


def test_an_endpoint_that_is_none_is_refused_as_ever(browser):
    own = {"Origin": str(browser.base_url).rstrip("/"), "X-CSRF-Token": settings(browser)["token"]}
    for name in ("other", "..%2fhealth", "getgroupids%3fa"):
        answer = browser.post(f"/ui/face/{name}", headers=own)
        assert answer.status_code == 404 or answer.json()["code"] == 3


def test_the_newest_sessions_are_kept(served, browser):
    for _ in range(MAX_SESSIONS):
        httpx.get(served.url + served.links[-1])
    assert browser.get("/ui/identify").status_code == 401


def test_a_session_ends_when_its_time_is_over(browser, monkeypatch):
    assert browser.get("/ui/identify").status_code == 200
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + SESSION_SECONDS + 1)
    assert browser.get("/ui/identify").status_code == 401
    monkeypatch.undo()
    assert browser.get("/ui/identify").status_code == 200


def test_a_cookie_is_only_what_the_server_has_made(served, browser):
    """No other number, end or proof of one's own, and no text of any other kind."""
    name, cookie = served.access.cookie, browser.cookies[served.access.cookie]
    number, end, proof = cookie.split(".")
    link = html.unescape(served.links[-1]).partition("=")[2]
    forged = [
        f"{int(number) + 1}.{end}.{proof}",
        f"{number}.{int(end) + 1}.{proof}",
        f"{number}.{end}.{link}",
        f"{number}.{end}.",
        f"{number}.{end}",
        proof,
        "",
        "..",
        "\xff",
    ]
    for value in forged:
        shown = httpx.get(f"{served.url}/ui/identify", headers=[(b"cookie", f"{name}={value}".encode("latin-1"))])
        assert shown.status_code == 401, value


def test_a_page_shows_one_account_s_faces(browser):
    """Whoever asks for another appid gets the code for a signature of another target."""
    own = {"Origin": str(browser.base_url).rstrip("/"), "X-CSRF-Token": settings(browser)["token"]}
    answer = browser.post("/ui/face/getgroupids", json={"appid": f"{ACCOUNT.appid}0", "bucket": BUCKET}, headers=own)
    assert answer.json()["code"] == 6
