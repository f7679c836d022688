"""Who may ask: for every route there is, a foreign request is refused and changes nothing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from films import film
from served import PORT, TOKEN, app, client, upload
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from vs_vsr.serve.app import Server

ORIGIN = f"http://127.0.0.1:{PORT}"
CHANGES = ("POST", "PATCH", "PUT", "DELETE")
FOREIGN_HOSTS = ("evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", "", "[::1]")
FOREIGN_ORIGINS = ("http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return app(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[TestClient]:
    with client(server) as browser:
        yield browser


@pytest.fixture(scope="module")
def ids(browser: TestClient, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of an upload and a job, which a request would change."""
    path = film(tmp_path_factory.mktemp("film") / "in.mkv", [40 * n for n in range(4)])
    job = browser.post("/api/jobs", json={"upload": upload(browser, "a.mkv", path.read_bytes())})
    begun = browser.post("/api/uploads", json={"name": "b.mkv", "bytes": 10})
    id = job.json()["id"]
    assert browser.patch(f"/api/jobs/{id}", json={"choice": "AnimeSR/v2"}).status_code == 200
    return {"jobs": id, "uploads": begun.json()["id"]}


def requests(server: Server, ids: dict[str, str]) -> list[tuple[str, str]]:
    """Method and address of every route."""
    found = []
    # Of the app itself, so that none can be forgotten here.
    assert isinstance(server.app.app, Starlette)
    for route in server.app.app.routes:
        assert isinstance(route, Route)
        kind = route.path.split("/")[2] if route.path.startswith("/api/") else ""
        address = route.path.replace("{id}", ids.get(kind, "")).replace("{number:int}", "1")
        assert "{" not in address
        found += [(method, address) for method in sorted(route.methods or ())]
    assert len(found) > 30
    return found


def state(server: Server, browser: TestClient, folder: Path) -> Any:
    """All that a request could change."""
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return files, [browser.get(f"/api/{kind}").json() for kind in ("jobs", "uploads")]


def ask(method: str, address: str, headers: dict[str, str]) -> dict[str, Any]:
    """A request that would be done, with headers of its own."""
    body = b'{"name": "other", "bytes": 5}'
    upload = address.startswith("/api/uploads/") and method == "PATCH"
    more = {"Upload-Offset": "0"} if upload else {}
    return {"method": method, "url": address, "content": body[:5] if upload else body} | {
        "headers": {**more, **headers}
    }


def foreign(method: str) -> Iterator[dict[str, str]]:
    let_in = {"Cookie": f"vsr-{PORT}={TOKEN}"}
    for host in FOREIGN_HOSTS:
        yield {**let_in, "Host": host}
    if method in CHANGES:
        for origin in FOREIGN_ORIGINS:
            yield {**let_in, "Origin": origin}
    for site in ("cross-site", "same-site", "anything"):
        yield {**let_in, "Sec-Fetch-Site": site}
    yield {}
    yield {"Cookie": f"vsr-{PORT}="}
    yield {"Cookie": f"vsr-{PORT}={TOKEN[:-1]}"}
    yield {"Cookie": f"vsr-1={TOKEN}"}
    yield {"Authorization": "Bearer "}
    yield {"Authorization": f"Bearer {TOKEN}x"}
    yield {"Authorization": f"Basic {TOKEN}"}


def test_foreign_requests_are_refused_and_change_nothing(
    server: Server, browser: TestClient, ids: dict[str, str]
) -> None:
    folder = server.folder
    before = state(server, browser, folder)
    stranger = TestClient(server.app, base_url=ORIGIN)
    for method, address in requests(server, ids):
        for headers in foreign(method):
            if address == "/" and "Sec-Fetch-Site" in headers:
                continue  # the page may be opened by a link elsewhere
            answer = stranger.request(**ask(method, address, headers))
            assert answer.status_code == 403, (method, address, headers)
            assert "Content-Security-Policy" in answer.headers
    assert state(server, browser, folder) == before


def test_the_same_requests_are_answered_from_the_page(
    server: Server, browser: TestClient, ids: dict[str, str]
) -> None:
    headers = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
    # What takes ids away comes last; the stream of events has no end.
    asked = sorted(requests(server, ids), key=lambda request: request[0] == "DELETE")
    for method, address in asked:
        if address != "/api/events":
            answer = browser.request(**ask(method, address, headers))
            assert answer.status_code not in (403, 405, 500), (method, address)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"


def test_the_start_address_lets_in_and_goes_away(server: Server) -> None:
    browser = TestClient(server.app, base_url=ORIGIN, follow_redirects=False)
    for wrong in ("", "x", TOKEN[:-1], "%C3%A9", "a" * 4000):
        answer = browser.get(f"/?token={wrong}")
        assert answer.status_code == 403 and "set-cookie" not in answer.headers
        assert re.fullmatch(r"The address must be .*, got another\. Copy .*\.\n", answer.text)
    assert browser.get(f"/page.js?token={TOKEN}").status_code == 403
    answer = browser.get(f"/?token={TOKEN}", headers={"Sec-Fetch-Site": "cross-site"})
    # With a redirect, a browser that comes from elsewhere would not send the cookie along.
    assert answer.status_code == 200 and 'content="0;url=/"' in answer.text
    cookie = answer.headers["set-cookie"]
    assert f"vsr-{PORT}=" in cookie and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert browser.get("/").status_code == 200
    assert browser.get("/", headers={"Host": f"LOCALHOST:{PORT}"}).status_code == 200


def test_the_page_names_no_address_but_its_own(browser: TestClient) -> None:
    for name, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
        answer = browser.get(f"/{name}")
        assert answer.headers["content-type"].startswith(kind)
        # But for the name of SVG's language.
        found = re.findall(r"https?://[^\s'\"]*|(?<!:)//[a-z][\w.]+\.[a-z]+", answer.text)
        assert set(found) <= {"http://www.w3.org/2000/svg"}


def test_what_is_no_request_is_refused(browser: TestClient) -> None:
    for body in (b"[" * 60000, b"x", b"[]", b'{"a": NaN', b'"\xff"'):
        assert browser.post("/api/uploads", content=body).status_code == 400
    answer = browser.post("/api/uploads", content=b" " * 65537)
    assert answer.status_code == 413
    assert answer.json()["problem"].startswith("The request must have at most 65536 bytes, got")
