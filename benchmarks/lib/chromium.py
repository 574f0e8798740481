"""Drive `handful label` in Chromium by the keyboard, with an annotator who knows the labels."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handful.data.cache import data_folder
from handful.data.image_folder import places_by_folder
from handful.labeling.start import KEYS

CHROMIUM = "/usr/bin/chromium"
NOW = """() => ({
  name: document.getElementById("caption").textContent,
  image: document.querySelector("#frame img") !== null,
  suggestion: window.handful.one.current && window.handful.one.current.suggestion,
  offer: !document.getElementById("offer").hidden,
  mode: window.handful.mode,
  finder: !document.getElementById("finder").hidden,
  left: window.handful.state && window.handful.state.left,
  unsent: document.getElementById("saving").textContent,
})"""


def unlabelled_copy(source: str, target: Path, count: int = 0) -> dict[str, str]:
    """Copy the labelled images of a folder into one flat folder; return name → class.

    Names tell nothing of the class. `count` images at most, 0 for all.
    """
    from handful.data.image_folder import Wanted
    from handful.data.scan import listing
    from handful.labeling.session import in_random_order

    root = data_folder() / source
    names = [file.name for file in listing(root, False)[0]]
    places = places_by_folder(source, names, Wanted(), lambda text: None)
    labeled = {n: p.label for n, p in zip(names, places, strict=True) if p.label}
    target.mkdir(parents=True)
    truth = {}
    kept = list(labeled)
    for number, at in enumerate(in_random_order(kept)[: count or None]):
        name = f"{number:05d}{Path(kept[at]).suffix.lower()}"
        shutil.copyfile(root / kept[at], target / name)
        truth[name] = labeled[kept[at]]
    return truth  # type: ignore[return-value]


@contextmanager
def labelling(
    folder: Path, work: Path, *options: str, cache: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """A running `handful label`: its process, its address, and when it was started."""
    environment = dict(os.environ)
    if cache is not None:
        environment["HANDFUL_CACHE"] = str(cache)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "handful", "label", folder.name, "--no-browser",
         "--labels", str(work / "labels.csv"), "--run", str(work / "run"), *options],
        stderr=subprocess.PIPE, text=True, env=environment, cwd=folder.parent,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "token=" in line:
                yield process, line.split()[-1], start
                break
        else:
            raise RuntimeError("handful label ended without an address")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def chromium(**context: Any) -> Iterator[Any]:
    """A page of a fresh Chromium; what goes wrong in the page ends the benchmark."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context.setdefault("viewport", {"width": 1280, "height": 800})
        page = browser.new_context(**context).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda said: (
                problems.append(said.text)
                if said.type == "error" and "favicon" not in (said.location or {}).get("url", "")
                else None
            ),
        )
        page.problems = problems
        yield page
        browser.close()


class Annotator:
    """Someone who knows the class of every image, and counts the keys."""

    def __init__(self, page: Any, truth: dict[str, str], wait: float = 0.0) -> None:
        self.page, self.truth, self.wait = page, truth, wait
        self.keys, self.labels, self.pages = 0, 0, 0
        self.classes: list[str] = []

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.keys += 1

    def now(self) -> dict[str, Any]:
        return self.page.evaluate(NOW)

    def one(self) -> bool:
        """Label the image that is shown, with as few keys as there are; False if there is none."""
        state = self.now()
        if not state["image"]:
            self.page.wait_for_timeout(50)
            return state["left"] != 0
        label = self.truth[state["name"]]
        if state["suggestion"] == label:
            self.press("Enter")
        elif label in self.classes and self.classes.index(label) < len(KEYS):
            if state["finder"]:
                self.press("Escape")
            self.press(KEYS[self.classes.index(label)])
        else:
            if not state["finder"]:
                self.press("/")
            for letter in label:
                self.press(letter)
            self.press("Enter")
            if label not in self.classes:
                self.classes.append(label)
                self.page.wait_for_function(
                    "n => window.handful.state.classes.some(row => row.name === n)",
                    arg=label,
                )
        self.labels += 1
        self.page.wait_for_function(
            "n => document.getElementById('caption').textContent !== n", arg=state["name"]
        )
        if self.wait:
            self.page.wait_for_timeout(1000 * self.wait)
        return True

    def tiles(self) -> None:
        """Confirm pages for as long as one is offered."""
        self.press("Shift+P")
        number = 0
        while True:
            self.page.wait_for_function(
                "n => window.handful.mode === 'one' ||"
                " (Number(document.getElementById('grid').dataset.page ?? 0) > n"
                "  && window.handful.tiles.tiles.length > 0)",
                arg=number,
            )
            if self.now()["mode"] == "one":
                return
            number = self.page.evaluate("Number(document.getElementById('grid').dataset.page)")
            tiles = self.page.evaluate(
                "window.handful.tiles.tiles.map(t => [t.name, t.label,"
                " t.button.querySelector('kbd').dataset.key])"
            )
            for name, label, hint in tiles:
                if self.truth[name] != label:
                    self.press(hint)
                else:
                    self.labels += 1
            self.press("Enter")
            self.pages += 1
            if self.wait:
                self.page.wait_for_timeout(1000 * self.wait)


def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="handful-label-"))
