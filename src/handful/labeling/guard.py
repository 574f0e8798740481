"""Keep everybody else out of the page.

A page on this machine can be reached by every other page that the browser has open, and by every
user of the machine. So: the host name must be the one that was opened (against DNS rebinding); a
token of one use becomes a cookie that scripts and other sites cannot use; what changes anything
must come from the page itself; nothing is shared with other origins, and a strict policy allows no
script but ours.
"""

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie

from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 2**20  # bytes of a request
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# Of the report of a run, which holds its style and its pictures, and no script.
REPORT = "/report/"
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
ENTERED = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="0;url=/"><title>handful</title></head>
<body><a href="/">Go on</a></body></html>"""
REFUSED = (
    "This page is for the person who started `handful label`. Open the address that the command "
    "printed; it opens the page once. To open it anew, start the command again: nothing is lost."
)


class Guard:
    """An ASGI application around the page's, which lets only its own user in."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], port: int) -> None:
        """`hosts` are the names by which the page may be called, without the port."""
        self.app = app
        self.names = frozenset(f"{host}:{port}" for host in hosts) | (
            hosts if port == 80 else frozenset()
        )
        self.cookie = f"handful-{port}"
        self.token = secrets.token_urlsafe(32)
        self._unused = True
        self._secret = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = {key.decode("latin-1").lower(): value.decode("latin-1")
                   for key, value in scope["headers"]}  # fmt: skip
        hosts = [value for key, value in scope["headers"] if key.lower() == b"host"]
        refused = self._refused(scope, headers, len(hosts))
        if refused is not None:
            return await refused(scope, receive, _with_headers(send))
        policy = REPORT_POLICY if scope["path"] == REPORT else POLICY
        await self.app(scope, _limited(receive), _with_headers(send, policy))

    def _refused(self, scope: Scope, headers: dict[str, str], hosts: int) -> Response | None:
        """The answer to a request that does not get through; None if it does."""
        host = headers.get("host", "")
        if hosts != 1 or host not in self.names:
            return PlainTextResponse("no page of this name here", 421)
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("method not allowed", 405)
        query = scope.get("query_string", b"").decode("latin-1")
        entering = method == "GET" and path == "/" and query.startswith("token=")
        inside = self._knows(headers.get("cookie", ""))
        if entering and (inside or self._enter(query.removeprefix("token="))):
            return self._entered()
        if not inside:
            return PlainTextResponse(REFUSED, 403)
        site = headers.get("sec-fetch-site")
        if method == "POST":
            origin = headers.get("origin")
            if origin is not None and origin != f"http://{host}":
                return PlainTextResponse("this came from another page", 403)
            if site != "same-origin" and not (site is None and origin is not None):
                return PlainTextResponse("this came from another page", 403)
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return PlainTextResponse("JSON is expected", 415)
            if not headers.get("content-length", "").isdecimal():
                return PlainTextResponse("the length is missing", 411)
            if int(headers["content-length"]) > MOST_BODY:
                return PlainTextResponse("too long", 413)
        elif site not in (None, "same-origin", "none") and path != "/":
            return PlainTextResponse("this came from another page", 403)
        return None

    def _enter(self, token: str) -> bool:
        """Whether the token is right; it is so once."""
        right = hmac.compare_digest(token.encode(), self.token.encode()) and self._unused
        if right:
            self._unused = False
        return right

    def _entered(self) -> Response:
        """Set the cookie, and go on to the page without the token in its address.

        A page and no redirect: the cookie is not sent along a redirect that another site began.
        """
        answer = HTMLResponse(ENTERED)
        answer.set_cookie(self.cookie, self._secret, path="/", httponly=True, samesite="strict")
        return answer

    def _knows(self, text: str) -> bool:
        try:
            found = SimpleCookie(text).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(
            found.value.encode(), self._secret.encode()
        )


def _with_headers(send: Send, policy: str = POLICY) -> Send:
    """`send` with the headers of the policy in every answer."""
    headers = {**HEADERS, "content-security-policy": policy}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.encode(): value.encode() for name, value in headers.items()}
            kept = [pair for pair in message["headers"] if pair[0].lower() not in own]
            message = {**message, "headers": kept + list(own.items())}
        await send(message)

    return sending


def _limited(receive: Receive) -> Receive:
    """`receive` that ends a body longer than MOST_BODY, whatever its length was said to be."""
    had = 0

    async def receiving() -> Message:
        nonlocal had
        message = await receive()
        had += len(message.get("body", b""))
        return {"type": "http.disconnect"} if had > MOST_BODY else message

    return receiving
