"""Small folders to label, and a client of a page's application without a network."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from handful.labeling.guard import Guard
from handful.labeling.serve import close
from handful.labeling.server import Page, application
from handful.labeling.start import Wanted, open_page
from handful.progress import Say, silent

PORT = 8123
ORIGIN = f"http://127.0.0.1:{PORT}"
OWN = {"sec-fetch-site": "same-origin", "content-type": "application/json"}


def folder(root: Path, count: int = 12, names: list[str] | None = None, side: int = 24) -> Path:
    """A folder of small images in colour, no two alike."""
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name in names or [f"{number:03d}.png" for number in range(count)]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return root


@contextmanager
def opened(source: Path, learn: bool = False, say: Say = silent, **wanted: Any) -> Iterator[Page]:
    """A page whose label file is beside the folder; its learner runs with `learn` only."""
    wanted.setdefault("labels", source.parent / "labels.csv")
    wanted.setdefault("run", source.parent / "run")
    page = open_page(Wanted(str(source), **wanted), say)
    page.learner._started = not learn
    try:
        yield page
    finally:
        close(page)


class Client:
    """Requests to a page's application, as a browser on this machine sends them."""

    def __init__(self, page: Page, enter: bool = True) -> None:
        self.guard: Guard = application(page, frozenset({"127.0.0.1", "localhost"}), PORT)
        self.cookies: dict[str, str] = {}
        if enter:
            self.cookies = dict(self.get(f"/?token={self.guard.token}").cookies)

    def send(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self.guard)
            async with httpx.AsyncClient(
                transport=transport, base_url=ORIGIN, cookies=self.cookies
            ) as client:
                return await client.request(method, path, **how)

        return asyncio.run(sent())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.send("POST", path, content=json.dumps(body), headers={**OWN, **named})

    def act(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a request that succeeds."""
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def label(client: Client, number: int, name: str, seen: str = "blind", act: str = "") -> Any:
    """Label one image."""
    item = {"number": number, "kind": "label", "label": name, "seen": seen}
    return client.act("/api/answer", id=act or f"{number}-{name}", items=[item])
