"""The page's web application: a thin shell around a session, its images, learner and fit."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from handful.data.decode import Unreadable
from handful.errors import HandfulError
from handful.labeling import guard
from handful.labeling.fitting import RUNS, Fitting
from handful.labeling.guard import Guard
from handful.labeling.journal import NotSaved
from handful.labeling.learner import Learner
from handful.labeling.photos import SIDES, Photos
from handful.labeling.session import PAGE_SIZES, Session, shown_name
from handful.pipeline.artifacts import ARTIFACTS, RECORD, REPORT

MOST_ITEMS = 500  # of one answer
BIN = 48  # images of a bin shown at a time
ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "one.js": "text/javascript; charset=utf-8",
    "tiles.js": "text/javascript; charset=utf-8",
    "panel.js": "text/javascript; charset=utf-8",
    "done.js": "text/javascript; charset=utf-8",
}
Body = Mapping[str, Any]


@dataclass
class Page:
    """What the page stands on."""

    session: Session
    photos: Photos
    learner: Learner
    fitting: Fitting
    about: dict[str, Any] = field(default_factory=dict)  # source, question, keys, …
    answer_question: Callable[[str], None] | None = None

    # Each of these answers one address; the argument is the request's JSON.

    def state(self, body: Body) -> dict[str, Any]:
        size = body.get("size") if body.get("size") in PAGE_SIZES else None
        return {
            **self.about,
            **self.session.state(),
            "settings": self.session.marks.settings,
            "learner": self.learner.state(),
            "offers": self.session.offers(size),
            "fit": self.fitting.state(),
            "unreadable": len(self.photos.unreadable),
        }

    def next(self, body: Body) -> dict[str, Any]:
        have = _list(body, "have")
        items = self.session.next(
            _text(body, "tab"), [n for n in have if isinstance(n, int)], _integer(body, "count", 1)
        )
        return {"items": items}

    def answer(self, body: Body) -> dict[str, Any]:
        return self.session.answer(
            _text(body, "id"), [_object(one) for one in _list(body, "items")]
        )

    def confirm(self, body: Body) -> dict[str, Any]:
        items, out = ([_object(one) for one in _list(body, key)] for key in ("items", "out"))
        return self.session.confirm(_text(body, "id"), items, out, body.get("page") == "class")

    def undo(self, body: Body) -> dict[str, Any]:
        return self.session.undo(_text(body, "id"))

    def add_class(self, body: Body) -> dict[str, Any]:
        name = self.session.add_class(_text(body, "id"), body.get("name"))
        return {"name": name, **self.session.state()}

    def rename_class(self, body: Body) -> dict[str, Any]:
        name = self.session.rename_class(_text(body, "id"), _text(body, "old"), body.get("new"))
        return {"name": name, **self.session.state()}

    def target(self, body: Body) -> dict[str, Any]:
        value = body.get("value")
        if value is not None and not (isinstance(value, int | float) and 0 < value < 1):
            raise HandfulError("a target is a share between 0 and 1, such as 0.95")
        self.session.set("target", value)
        self.learner.retarget()
        return self.state({})

    def folders(self, body: Body) -> dict[str, Any]:
        answer = _text(body, "answer")
        if answer not in ("classes", "groups", "ignore") or self.answer_question is None:
            raise HandfulError("the folders are classes, groups or ignored")
        self.answer_question(answer)
        self.session.set("folders", answer)
        self.about["question"] = ""
        return self.state({})

    def tiles(self, body: Body) -> dict[str, Any]:
        size, kind = _integer(body, "size", PAGE_SIZES[0]), body.get("kind")
        if not 1 <= size <= PAGE_SIZES[1]:
            raise HandfulError(f"a page has 1 to {PAGE_SIZES[1]} tiles")
        if kind == "like":
            number, label = body.get("value"), body.get("label")
            near = self.learner.like(self.session.checked(number), 4 * size)
            found = self.session.tiles_of(near, label if isinstance(label, str) else None)
            return {"label": label, "tiles": found[:size]}
        return self.session.tiles("class" if kind == "class" else "unsure", body.get("value"), size)

    def look_again(self, body: Body) -> dict[str, Any]:
        numbers = self.learner.issues()
        self.session.look_again(numbers)
        return {"images": len(numbers)}

    def start_fit(self, body: Body) -> dict[str, Any]:
        self.session.write_table()
        self.fitting.start(_text(body, "budget") if body.get("budget") else "")
        self.session.set(RUNS, self.fitting.made)
        return self.fitting.state()

    def stop_fit(self, body: Body) -> dict[str, Any]:
        self.fitting.stop()
        return self.fitting.state()

    def bins(self, body: Body) -> dict[str, Any]:
        """The answers of the last fit; the random sample stays unseen, so that it stays blind."""
        session, wanted = self.session, body.get("label")
        start = _integer(body, "start", 0)
        bins, tiles, hidden = [], [], 0
        for label, rows in sorted(self.fitting.bins().items()):
            numbers = [(session.number[n], c) for n, c in rows if n in session.number]
            shown = [
                (n, c) for n, c in numbers
                if n not in session.sample and session.names[n] not in session.marks.of
            ]  # fmt: skip
            hidden += len(numbers) - len(shown)
            bins.append({"label": label, "images": len(numbers)})
            if label == wanted:
                tiles = [
                    {"number": n, "name": shown_name(session.names[n]), "label": label,
                     "confidence": c}
                    for n, c in shown[start : start + BIN]
                ]  # fmt: skip
        return {"bins": bins, "tiles": tiles, "start": start, "each": BIN, "hidden": hidden}


POSTS = {
    "/api/state": Page.state,
    "/api/next": Page.next,
    "/api/answer": Page.answer,
    "/api/confirm": Page.confirm,
    "/api/undo": Page.undo,
    "/api/class": Page.add_class,
    "/api/rename": Page.rename_class,
    "/api/target": Page.target,
    "/api/folders": Page.folders,
    "/api/tiles": Page.tiles,
    "/api/again": Page.look_again,
    "/api/fit": Page.start_fit,
    "/api/stop": Page.stop_fit,
    "/api/bins": Page.bins,
}


def application(page: Page, hosts: frozenset[str], port: int) -> Guard:
    """The guarded application of a page."""
    routes = [
        Route("/", _asset("index.html")),
        Route("/image/{number:int}/{side:int}", _image(page)),
        Route(guard.REPORT, _report(page)),
        Route(f"{guard.REPORT}{{name}}", _run_file(page)),
        *(Route(f"/{name}", _asset(name)) for name in ASSETS if name != "index.html"),
        *(Route(path, _post(page, act), methods=["POST"]) for path, act in POSTS.items()),
    ]
    return Guard(Starlette(routes=routes), hosts, port)


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("handful.labeling").joinpath("page", name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, headers={"content-type": ASSETS[name]})

    return send


def _image(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        number, side = request.path_params["number"], request.path_params["side"]
        if side not in SIDES or not 0 <= number < len(page.photos.names):
            return PlainTextResponse("no such image", 404)
        try:
            picture = await run_in_threadpool(page.photos.picture, number, side)
        except Unreadable as error:
            return Json({"error": str(error)}, 422)
        page.learner.start()  # torch takes a second of all processors: after the first picture
        return Response(picture.content, media_type=picture.kind)

    return send


def _report(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        path = page.fitting.run / REPORT
        if not path.is_file():
            return PlainTextResponse(f"there is no {path}; press Train first", 404)
        return FileResponse(path, media_type="text/html; charset=utf-8")

    return send


def _run_file(page: Page) -> Callable[[Request], Awaitable[Response]]:
    """A file of the run that the report links to; it is downloaded, never shown."""

    async def send(request: Request) -> Response:
        name = request.path_params["name"]
        path = page.fitting.run / name
        if name not in (RECORD, *ARTIFACTS) or not path.is_file():
            return PlainTextResponse("no such file of the run", 404)
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    return send


def _post(
    page: Page, act: Callable[[Page, Body], dict[str, Any]]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            body = json.loads(await request.body() or b"{}")
            if not isinstance(body, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError, ClientDisconnect):
            return Json({"error": "the request is no JSON object"}, 400)
        try:
            return Json(await run_in_threadpool(act, page, body))
        except NotSaved as error:
            return Json({"error": str(error)}, 507)
        except HandfulError as error:
            return Json({"error": str(error)}, 400)

    return answer


class Json(Response):
    """JSON in ASCII: a name that is no valid Unicode has a form there, too."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def _integer(body: Body, key: str, default: int) -> int:
    value = body.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise HandfulError(f"{key} is a whole number")
    return value


def _list(body: Body, key: str) -> list[Any]:
    value = body.get(key, [])
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise HandfulError(f"{key} is a list of {MOST_ITEMS} at most")
    return value


def _text(body: Body, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise HandfulError(f"{key} is a text of 1 to 200 characters")
    return value


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise HandfulError("each item is an object")
    return value
