"""Answer many requests with one model: what waits while a batch is computed is the next batch.

Letters in shapes: N images, K classes, C channels, S the side in pixels.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

import numpy as np

from handful.onnx_runtime import Answers


class Full(Exception):
    """Raised where too much waits already."""


class One(NamedTuple):
    """The answer for one image."""

    probabilities: np.ndarray  # (K,)
    distance: float | None  # to the images of the run; None where the model does not tell


class _Asked(NamedTuple):
    """An image that someone waits for."""

    content: bytes
    answer: "asyncio.Future[One | str]"


class Batches:
    """Threads that read images, in front of a model, which computes one batch at a time.

    An image alone is computed by the thread that has read it, so it changes threads once. Where
    more images are to be read, a thread of its own computes what waits: many requests make
    batches, and none waits for a picture that takes long to read.
    """

    def __init__(
        self,
        read: Callable[[bytes], np.ndarray | str],
        answer: Callable[[np.ndarray], Answers],
        most_waiting: int,
        largest: int,
        threads: int,
    ) -> None:
        """`read` returns pixels (C, S, S), or why there are none; `answer` maps (N, C, S, S) uint8
        to answers. Both run in these threads."""
        self.read, self.answer = read, answer
        self.most_waiting, self.largest = most_waiting, largest
        self.computed = self.batches = self.unreadable = 0
        self._unread = 0
        self._waiting: deque[tuple[np.ndarray, _Asked]] = deque()
        self._computes = False
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(threads, "images")
        self._model = ThreadPoolExecutor(1, "model")

    @property
    def waiting(self) -> int:
        """Images that are not answered yet, but for those that are computed."""
        return self._unread + len(self._waiting)

    async def ask(self, contents: Sequence[bytes]) -> list[One | str]:
        """The answers for images, or why there is none; raises `Full` where they have no room."""
        if self.waiting + len(contents) > self.most_waiting:
            raise Full
        loop = asyncio.get_running_loop()
        asked = [_Asked(content, loop.create_future()) for content in contents]
        with self._lock:
            self._unread += len(asked)
        for one in asked:
            self._threads.submit(self._work, one, loop)
        try:
            return list(await asyncio.gather(*(one.answer for one in asked)))
        finally:  # who asked may be gone: what was not begun is not computed
            for one in asked:
                one.answer.cancel()

    def _work(self, asked: _Asked, loop: asyncio.AbstractEventLoop) -> None:
        """Read an image, in one of the threads, and see that what waits is computed."""
        found: np.ndarray | str | Exception | None = None
        try:
            if not asked.answer.done():
                found = self.read(asked.content)
        except Exception as error:
            found = error
        with self._lock:
            self._unread -= 1
            alone = not self._unread
            if isinstance(found, np.ndarray):
                self._waiting.append((found, asked))
            elif isinstance(found, str):
                self.unreadable += 1
        if isinstance(found, str | Exception):
            _tell(loop, [asked], [found])
        if alone:
            self._compute(loop)
        else:
            self._model.submit(self._compute, loop)

    def _compute(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute what waits, unless another thread does; that one goes on with what came since."""
        while batch := self._next_batch():
            answers = self._answers([image for image, _ in batch])
            self._computes = False
            _tell(loop, [one for _, one in batch], answers)

    def _next_batch(self) -> list[tuple[np.ndarray, _Asked]]:
        """What the thread that asks is to compute now; nothing, where another one computes."""
        with self._lock:
            if self._computes:
                return []
            batch: list[tuple[np.ndarray, _Asked]] = []
            while self._waiting and len(batch) < self.largest:
                image, asked = self._waiting.popleft()
                if not asked.answer.done():
                    batch.append((image, asked))
            self._computes = bool(batch)
            return batch

    def _answers(self, images: list[np.ndarray]) -> Sequence[One | Exception]:
        try:
            found = self.answer(np.stack(images))
        except Exception as error:
            return [error] * len(images)
        self.computed += len(images)
        self.batches += 1
        far = [None] * len(images) if found.distances is None else found.distances.tolist()
        return [One(shares, one) for shares, one in zip(found.probabilities, far, strict=True)]

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._model.shutdown(wait=True)


def _tell(
    loop: asyncio.AbstractEventLoop,
    asked: Sequence[_Asked],
    found: Sequence[One | str | Exception],
) -> None:
    """Give those who asked what was found, in the thread of the event loop."""

    def tell() -> None:
        for one, what in zip(asked, found, strict=True):
            if one.answer.done():
                continue
            if isinstance(what, Exception):
                one.answer.set_exception(what)
            else:
                one.answer.set_result(what)

    loop.call_soon_threadsafe(tell)
