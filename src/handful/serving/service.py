"""The service: images come in as bytes, answers go out as JSON."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from handful.data import decode
from handful.data.decoding.value_range import Scale
from handful.errors import HandfulError
from handful.onnx_runtime import OnnxModel
from handful.serving.batching import Batches, Full, One
from handful.serving.guard import BUCKETS, Counts, Guard, Limits, TooLong, problem, too_long

ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}


class Service:
    """A model with what is asked of it."""

    def __init__(
        self,
        model: OnnxModel,
        scale: Scale | None,
        *,
        threshold: float = 0.0,
        none_of_these: bool = False,
        limits: Limits | None = None,
        decoders: int = 2,
    ) -> None:
        """Answers of lower confidence than `threshold` get no label; with `none_of_these` those
        get none that are unlike all images of the run. `decoders` is a number of threads."""
        self.model, self.scale, self.threshold = model, scale, threshold
        self.none_of_these = none_of_these
        self.limits = limits or Limits()
        self.counts = Counts()
        self.batches = Batches(
            self._pixels, model.answer, self.limits.waiting, model.in_a_pass, decoders
        )

    def close(self) -> None:
        self.batches.close()

    # Each of these answers one address.

    async def predict(self, request: Request) -> Response:
        try:
            return await self._predict(request)
        except HTTPException as error:  # of the multipart reader
            return problem(error.status_code, str(error.detail)[:200])
        except TooLong:
            return too_long(self.limits)
        except ClientDisconnect:
            return problem(400, "the request ended early")
        except Full:
            return problem(503, "too much waits, come again", retry=True)

    async def _predict(self, request: Request) -> Response:
        contents = await self._contents(request)
        if isinstance(contents, Response):
            return contents
        answers = await self.batches.ask([content for _, content in contents])
        found = [
            {"file": name, **({"error": one} if isinstance(one, str) else self._said(one))}
            for (name, _), one in zip(contents, answers, strict=True)
        ]
        good = any(isinstance(one, One) for one in answers)
        return JSONResponse({"predictions": found}, 200 if good else 422)

    async def _contents(self, request: Request) -> list[tuple[str | None, bytes]] | Response:
        """Name and bytes of each image in a request, or what is wrong with it."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            body = await request.body()
            return [(None, body)] if body else problem(400, "the body is empty; send an image")
        _, about = parse_options_header(request.headers["content-type"])
        if about.get(b"charset", b"utf-8").lower() != b"utf-8":  # others would name Python's codecs
            return problem(400, "the charset of a form is utf-8; leave it out")
        most = self.limits.images
        async with request.form(max_files=most, max_fields=16, max_part_size=1024) as form:
            parts = [part for _, part in form.multi_items() if not isinstance(part, str)]
            if not parts:
                return problem(400, "no file in the form; send images as files")
            return [(part.filename or "", await part.read()) for part in parts]

    def _pixels(self, content: bytes) -> np.ndarray | str:
        """(C, S, S) of an image, or the reason why there is none."""
        about = self.model.about["input"]
        # Decoding looks at a file more than once. A folder for all would be gone one day: systems
        # clear what is old from where temporary files are.
        handle, name = mkstemp(prefix="handful-serve-")
        path = Path(name)
        try:
            with open(handle, "wb") as file:
                file.write(content)
            return decode.read(path, about["size"], about["aspect"], about["channels"], self.scale)
        except (decode.Unreadable, HandfulError) as error:
            return str(error)
        finally:
            path.unlink(missing_ok=True)

    def _said(self, one: One) -> dict[str, Any]:
        known = self.model.about["none_of_these"]
        far = None if known is None or one.distance is None else one.distance > known["distance"]
        confidence = float(one.probabilities.max())
        abstained = confidence < self.threshold
        silent = abstained or (self.none_of_these and bool(far))
        label = None if silent else self.model.classes[int(one.probabilities.argmax())]
        shares = zip(self.model.classes, one.probabilities.tolist(), strict=True)
        return {
            "label": label,
            "confidence": confidence,
            "abstained": abstained,
            "none_of_these": far,
            "probabilities": dict(shares),
        }

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "handful": self.model.about["handful"]})

    async def metrics(self, request: Request) -> Response:
        counts, total = self.counts, sum(self.counts.answers.values())
        lines = ["# TYPE handful_requests_total counter"]
        lines += [
            f'handful_requests_total{{status="{status}"}} {n}'
            for status, n in sorted(counts.answers.items())
        ]
        plain = {
            "handful_images_total": ("counter", self.batches.computed),
            "handful_unreadable_images_total": ("counter", self.batches.unreadable),
            "handful_batches_total": ("counter", self.batches.batches),
            "handful_waiting_images": ("gauge", self.batches.waiting),
        }
        for name, (kind, value) in plain.items():
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        name = "handful_request_seconds"
        lines.append(f"# TYPE {name} histogram")
        lines += [f'{name}_bucket{{le="{b:g}"}} {counts.buckets[b]}' for b in BUCKETS]
        lines += [f'{name}_bucket{{le="+Inf"}} {total}']
        lines += [f"{name}_sum {counts.seconds:.6f}", f"{name}_count {total}"]
        return PlainTextResponse(
            "\n".join(lines) + "\n", headers={"content-type": "text/plain; version=0.0.4"}
        )


def application(service: Service, hosts: frozenset[str] | None, token: str | None) -> Guard:
    """The guarded application of a service; the arguments are those of `Guard`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        yield
        service.close()

    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/healthz", service.health),
        Route("/metrics", service.metrics),
        *(Route(path, _asset(*asset)) for path, asset in ASSETS.items()),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    return Guard(app, hosts, token, service.limits, service.counts)


def _asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("handful.serving").joinpath("page", name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return send
