"""Who may ask: this machine's user, by the page that this server gave, and nobody else.

A page elsewhere can make a browser ask 127.0.0.1, and can let its own name point there (DNS
rebinding). So each request must name this server as its host and carry the token, and one that
changes something must come from the page itself.
"""

import secrets
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vs_vsr.serve.answers import json_answer

__all__ = ["Guard", "going_on"]

_READS = ("GET", "HEAD")


class Guard:
    """Lets requests through to the app, and sets on each answer what browsers may do with it."""

    def __init__(self, app: ASGIApp, *, port: int, token: str) -> None:
        """Stand before an app.

        Args:
            app: It.
            port: That the server listens on.
            token: What the start address has.
        """
        self.app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._token, self._cookie = token.encode(), f"vsr-{port}"
        self._headers = {
            "Content-Security-Policy": "; ".join(
                (
                    "default-src 'none'",
                    "script-src 'self'",
                    "style-src 'self'",
                    "img-src 'self' data:",
                    "connect-src 'self'",
                    "base-uri 'none'",
                    "form-action 'none'",
                    "frame-ancestors 'none'",
                )
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing else is answered

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        answer = self._answer(scope, Headers(scope=scope))
        await (answer or self.app)(scope, receive, send_on)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """What is said in place of the app; None if it may be asked."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _refused(
                scope,
                "The host must be 127.0.0.1 or localhost, got another. Use the address that "
                "vs-vsr serve printed.",
            )
        reads = scope["method"] in _READS
        if not reads and headers.get("origin", f"http://{hosts[0]}") != f"http://{hosts[0]}":
            return _refused(scope, _ELSEWHERE)
        # The page itself may be opened from anywhere: it needs the token all the same.
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and not (reads and scope["path"] == "/"):
            return _refused(scope, _ELSEWHERE)
        if scope["method"] == "GET" and scope["path"] == "/":
            token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if token and self._is_token(token):
                return self._entered()
        if any(map(self._is_token, self._tokens(headers))):
            return None
        return _refused(
            scope,
            "The address must be the one that vs-vsr serve printed, with its token, got another. "
            "Copy it from there.",
        )

    def _tokens(self, headers: Headers) -> Iterable[str]:
        """What a request shows to be let in."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            yield token
        # As browsers read them: other servers of this machine set theirs for it too.
        cookies = cookie_parser(headers.get("cookie", ""))
        if self._cookie in cookies:
            yield cookies[self._cookie]

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode("utf-8", "surrogateescape"), self._token)

    def _entered(self) -> Response:
        # No redirect: after a link from another site, browsers would leave this cookie out of it.
        answer = HTMLResponse(going_on("/"))
        answer.set_cookie(
            self._cookie, self._token.decode(), httponly=True, samesite="strict", path="/"
        )
        return answer


def going_on(address: str) -> str:
    """A page of HTML that goes on to another by itself."""
    return (
        f'<!doctype html><title>vs-vsr</title><meta http-equiv="refresh" content="0;url={address}">'
    )


_ELSEWHERE = (
    "The request must come from the page itself, got one from elsewhere. Open the address that "
    "vs-vsr serve printed."
)


def _refused(scope: Scope, sentence: str) -> Response:
    if scope["path"] == "/":
        return PlainTextResponse(f"{sentence}\n", 403)
    return json_answer({"problem": sentence}, 403)
