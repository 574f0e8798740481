"""Answer many requests with one model: what waits while a batch is computed is the next batch.

Letters in shapes: N images, K classes, C channels, S the side in pixels.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from handful.onnx_runtime import Answers


class Full(Exception):
    """Raised where too much waits already."""


class One(NamedTuple):
    """The answer for one image."""

    probabilities: np.ndarray  # (K,)
    distance: float | None  # to the images of the run; None where the model does not tell


class Batches:
    """A queue of images in front of a model, which computes one batch at a time.

    An idle model takes an image at once; nothing waits for others to come.
    """

    def __init__(
        self, answer: Callable[[np.ndarray], Answers], most_waiting: int, largest: int
    ) -> None:
        """`answer` maps (N, C, S, S) uint8 to answers; it runs in a thread of its own."""
        self.answer, self.most_waiting, self.largest = answer, most_waiting, largest
        self.waiting: deque[tuple[np.ndarray, asyncio.Future[One]]] = deque()
        self.computed = self.batches = 0
        self._runs: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "model")

    async def ask(self, images: list[np.ndarray]) -> list[One]:
        """The answers for images (C, S, S); raises `Full` where they have no room in the queue."""
        if len(self.waiting) + len(images) > self.most_waiting:
            raise Full
        loop = asyncio.get_running_loop()
        asked: list[asyncio.Future[One]] = [loop.create_future() for _ in images]
        self.waiting.extend(zip(images, asked, strict=True))
        if self._runs is None or self._runs.done():
            self._runs = asyncio.create_task(self._run())
        try:
            return list(await asyncio.gather(*asked))
        finally:  # who asked may be gone: what was not begun is not computed
            for one in asked:
                one.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            taken = [self.waiting.popleft() for _ in range(min(self.largest, len(self.waiting)))]
            batch = [(image, asked) for image, asked in taken if not asked.done()]
            if not batch:
                continue
            images = np.stack([image for image, _ in batch])
            try:
                found = await loop.run_in_executor(self._thread, self.answer, images)
            except Exception as error:
                for _, asked in batch:
                    if not asked.done():
                        asked.set_exception(error)
                continue
            self.computed += len(batch)
            self.batches += 1
            for number, (_, asked) in enumerate(batch):
                far = None if found.distances is None else float(found.distances[number])
                if not asked.done():
                    asked.set_result(One(found.probabilities[number], far))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
