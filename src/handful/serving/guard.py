"""Decide which requests get in, and bound what they may take.

On this machine other users' programs and every page in the browser can reach the port. A page of
another site may not use the service: its requests name their origin, and are refused; a host name
that is not ours is refused, too (DNS rebinding). With a token, only who has it gets an answer.
"""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handful.serving.batching import Full

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
OPEN = frozenset({"/", "/app.js", "/style.css", "/healthz"})  # they need no token


@dataclass(frozen=True)
class Limits:
    """What a request, and all requests together, may take."""

    body: int = 32 * 2**20  # bytes
    images: int = 64  # in a request
    waiting: int = 256  # images that are not answered yet
    held: int = 512 * 2**20  # bytes of all bodies that are being answered: others come again
    requests: int = 128  # at a time: others are told to come again
    seconds: float = 30.0  # from the first byte of a request to its answer


BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds


@dataclass
class Counts:
    """What became of the requests for an answer."""

    answers: Counter[int] = field(default_factory=Counter)  # by status
    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)  # answers within these seconds

    def add(self, status: int, seconds: float) -> None:
        self.answers[status] += 1
        self.seconds += seconds
        self.buckets.update(bound for bound in BUCKETS if seconds <= bound)


class TooLong(Exception):
    """Raised while a body is read that is longer than it may be."""


class Guard:
    """An ASGI application around the service's."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None,
        token: str | None,
        limits: Limits,
        counts: Counts,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`hosts` are the names, with the port, by which it may be called; None is any."""
        self.app, self.hosts, self.token, self.limits = app, hosts, token, limits
        self.counts, self.clock = counts, clock
        self.active = self.held = 0  # requests that are being answered, and bytes of their bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        start, answering = self.clock(), _Answering(send)
        refused = self._refused(scope)
        try:
            if refused is not None:
                await refused(scope, receive, answering)
            else:
                await self._answered(scope, receive, answering)
        finally:
            if scope["path"] == "/predict":
                self.counts.add(answering.status, self.clock() - start)

    async def _answered(self, scope: Scope, receive: Receive, answering: "_Answering") -> None:
        self.active += 1
        body = _Body(receive, self)
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, body, answering)
        except TimeoutError:
            if not answering.status:
                late = problem(503, "it took too long, come again", retry=True)
                await late(scope, receive, answering)
        finally:
            self.active -= 1
            self.held -= body.length

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to a request that does not get in; None if it does."""
        pairs = [(key.decode("latin-1").lower(), value.decode("latin-1"))
                 for key, value in scope["headers"]]  # fmt: skip
        headers = dict(pairs)
        host = headers.get("host", "")
        if sum(key == "host" for key, _ in pairs) != 1 or (
            self.hosts is not None and host.lower() not in self.hosts
        ):
            return problem(421, "no service of this name here")
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        own = origin in (None, f"http://{host}", f"https://{host}")
        navigates = scope["method"] == "GET" and scope["path"] == "/"
        if not own or (site not in (None, "same-origin", "none") and not navigates):
            return problem(403, "this came from a page of another site")
        if self.token is not None and scope["path"] not in OPEN:
            if not hmac.compare_digest(
                headers.get("authorization", "").encode(), f"Bearer {self.token}".encode()
            ):
                refused = problem(401, "the token is missing or wrong")
                refused.headers["www-authenticate"] = "Bearer"
                return refused
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            return problem(400, "content-length is no number")
        if int(length) > self.limits.body:
            return too_long(self.limits)
        if self.active >= self.limits.requests and scope["path"] != "/healthz":
            return problem(503, "too many requests at a time, come again", retry=True)
        return None


def too_long(limits: Limits) -> Response:
    return problem(413, f"a request has {limits.body >> 20} MB at most")


def problem(status: int, what: str, retry: bool = False) -> Response:
    """An error as JSON; with `retry` it tells when to come again, in seconds."""
    return JSONResponse({"error": what}, status, {"retry-after": "1"} if retry else None)


class _Answering:
    """`send` with the headers of the policy, which knows the status of the answer."""

    def __init__(self, send: Send) -> None:
        self.send, self.status = send, 0  # 0: no answer has begun

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kept = [pair for pair in message["headers"] if pair[0].lower() not in HEADERS]
            message = {**message, "headers": kept + list(HEADERS.items())}
        await self.send(message)


class _Body:
    """`receive` that raises `TooLong` or `Full`, whatever length was said before."""

    def __init__(self, receive: Receive, guard: Guard) -> None:
        self.receive, self.guard, self.length = receive, guard, 0

    async def __call__(self) -> Message:
        message = await self.receive()
        more = len(message.get("body", b""))
        self.length += more
        self.guard.held += more
        if self.length > self.guard.limits.body:
            raise TooLong
        if self.guard.held > self.guard.limits.held:
            raise Full
        return message
