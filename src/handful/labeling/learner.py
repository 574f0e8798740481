"""Learn in the background while images are labelled: features, then head and order, then estimate.

Three threads, at low priority, none of which the page waits for. torch is imported in them, so the
page is there before. Features are made in the order of need: of labelled images, of those that come
up next, then of the others; they are kept in handful's cache, where `fit` finds them.
"""

import os
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.errors import HandfulError
from handful.labeling.photos import Photos
from handful.labeling.session import Session

if TYPE_CHECKING:
    import torch

MOST_FEATURES = 50_000  # images that the page learns to know; `fit` predicts all others
CHUNKS = (16, 32, 64, 128, 256)  # images of the first chunks of features, and of all later ones
NICENESS = 10


class Learner:
    """The threads of a session, and what they found."""

    def __init__(self, session: Session, photos: Photos, log: Callable[[str], None]) -> None:
        self.session, self.photos = session, photos
        self.problem = ""  # why nothing is learned any more, if so
        self.estimate: dict[str, Any] | None = None
        self.history: list[
            tuple[int, float | None, float | None, float | None]
        ] = []  # labels, accuracy, low, high
        self.features_made = 0
        self._log = log
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._features: torch.Tensor | None = None  # (capacity, D) float16
        self._row = np.full(len(photos.names), -1, np.int32)
        self._at: list[int] = []  # row → number
        self._new = threading.Event()  # features or labels are new
        self._to_assess = threading.Event()
        self._assessed: Any = None
        self._assessed_labels: list[tuple[int, str]] = []  # number and class, by position
        self._temperature = 1.0
        self._threads: list[threading.Thread] = []
        self._started = False

    def start(self) -> None:
        """Start the threads, at the first call."""
        with self._lock:
            started, self._started = self._started, True
        if started:
            return
        for work in (self._make_features, self._learn, self._assess):
            thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ask the threads to end, and wait for a moment; they are daemons and hold no file."""
        self._stop.set()
        for event in (self._new, self._to_assess, self.session.changed):
            event.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def state(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {
            "features": self.features_made,
            "features_wanted": min(len(self.session.shuffled), MOST_FEATURES),
            "estimate": self.estimate and {**self.estimate, "issues": len(self.issues())},
            "history": self.history[-200:],
            "problem": self.problem,
        }

    def like(self, number: int, count: int) -> list[int]:
        """The images most like this one, the likest first."""
        with self._lock:
            features, row, at = self._features, int(self._row[number]), list(self._at)
        if features is None or row < 0:
            return []
        x = features[: len(at)].float()
        x = x - x.mean(dim=0)
        likeness = (x @ x[row]) / x.norm(dim=1).clamp_min(1e-6)
        best = likeness.argsort(descending=True)[: count + len(self.session.sample)].tolist()
        return [at[other] for other in best if other != row]

    def issues(self) -> list[int]:
        """Labelled images whose label the predictions contradict, the worst first.

        Labels that were looked at again and confirmed are not among them, nor those that changed
        since the estimate was made.
        """
        with self._lock:
            found, labels = self._assessed, self._assessed_labels
        if found is None:
            return []
        return self.session.in_doubt(dict(labels[position] for position in found.issues))

    def retarget(self) -> None:
        """Tell the page what a new target means, from the last estimate."""
        self._publish()

    # -- features --------------------------------------------------------------------------------

    def _make_features(self) -> None:
        import torch

        from handful.labeling.opinions import feature_network

        made = 0
        network, size, channels = None, 0, 0
        while not self._stop.is_set():
            numbers = self._needed(CHUNKS[min(made, len(CHUNKS) - 1)])
            if not numbers:
                self.photos.finished()
                return
            images, kept = self.photos.images(numbers)
            self.session.unreadable = self.photos.unreadable
            with self._lock:
                self._row[[n for n in numbers if n not in kept]] = -2  # never again
            if not kept:
                continue
            if network is None or images.channels > channels:
                network, size = feature_network(images)
                channels = images.channels
                self._forget()
            rows = self._of(images, network, size, kept)
            if rows is None:
                continue
            with self._lock:
                self._add(torch, kept, rows)
            made += 1
            self._new.set()

    def _of(self, images: Any, network: Any, size: int, kept: list[int]) -> "torch.Tensor | None":
        from handful.data.store import Vanished
        from handful.models.feature_cache import features

        try:
            return features(images, network, size)
        except Vanished as vanished:
            lost = {kept[int(row)] for row in vanished.rows}
            self.photos.unreadable.update(dict.fromkeys(lost, "vanished"))
            with self._lock:
                self._row[list(lost)] = -2
            return None

    def _needed(self, count: int) -> list[int]:
        """Numbers of the next images to make features of."""
        with self._lock:
            full = len(self._at) >= MOST_FEATURES
            unknown = self._row == -1
        first = [n for n in self.session.wanted() if unknown[n]]
        numbers = dict.fromkeys(first[:count])
        if not full:
            sample = len(self.session.sample)
            order = self.session.shuffled[sample:] + self.session.shuffled[:sample]
            for number in order:
                if len(numbers) >= count:
                    break
                if unknown[number]:
                    numbers[number] = None
        return list(numbers)

    def _add(self, torch: Any, numbers: list[int], rows: "torch.Tensor") -> None:
        old = self._features
        used = len(self._at)
        if old is None or used + len(rows) > len(old):
            capacity = min(
                max(2 * (used + len(rows)), 1_024),
                max(len(self.photos.names), used + len(rows)),
            )
            larger = torch.empty(capacity, rows.shape[1], dtype=torch.float16)
            if old is not None:
                larger[:used] = old[:used]
            self._features = larger
        assert self._features is not None
        self._features[used : used + len(rows)] = rows
        self._row[numbers] = np.arange(used, used + len(rows))
        self._at += numbers
        self.features_made = len(self._at)

    def _forget(self) -> None:
        with self._lock:
            self._row[self._row >= 0] = -1
            self._at, self._features = [], None

    # -- head and order --------------------------------------------------------------------------

    def _learn(self) -> None:
        from handful.labeling import learning, opinions

        version, known, coordinates = 0, (-1, -1), None
        while not self._stop.is_set():
            if not (self.session.changed.wait(timeout=0.2) or self._new.is_set()):
                continue
            self.session.changed.clear()
            self._new.clear()
            with self._lock:
                features, row, at = self._features, self._row.copy(), list(self._at)
            if features is None or len(at) < 4:
                continue
            features = features[: len(at)]
            if coordinates is None or len(at) >= 2 * known[0]:
                coordinates, known = learning.map_of(features), (len(at), 0)
            version += 1
            self.session.opinion = opinions.opinion_of(
                self.session, features, row, at, coordinates, self._temperature, version
            )
            self._to_assess.set()

    # -- estimate --------------------------------------------------------------------------------

    def _assess(self) -> None:
        from handful.labeling import learning, opinions

        last: tuple[int, ...] = ()
        while not self._stop.is_set():
            self._to_assess.wait()
            self._to_assess.clear()
            with self._lock:
                features, row = self._features, self._row.copy()
            found = opinions.labeled_rows(self.session, row)
            if features is None or found is None or not self._is_news(found.key, last):
                continue
            x = features[found.rows.tolist()]
            try:
                assessed = learning.assess(
                    x, found.labels, found.origins, len(found.classes), found.groups
                )
            except HandfulError as error:
                self.estimate = {"labels": len(found.labels), "accuracy": None, "how": str(error)}
                continue
            last = found.key
            labels = [found.classes[k] for k in found.labels.tolist()]
            with self._lock:
                self._assessed = assessed
                self._assessed_labels = list(zip(found.numbers, labels, strict=True))
            self._origins = found.origins
            self._temperature = assessed.temperature
            self.session.precision = assessed.precision(found.classes)
            self._publish()
            if self.estimate is not None and self.estimate["known"]:
                one = assessed.estimate
                self.history.append((len(found.labels), one.accuracy, one.low, one.high))

    @staticmethod
    def _is_news(key: tuple[int, ...], last: tuple[int, ...]) -> bool:
        """Whether so many labels changed since the last estimate that it is made again."""
        if key == last:
            return False
        changed = len(set(key) ^ set(last))
        return changed >= max(1, len(key) // 40)

    def _publish(self) -> None:
        from handful.labeling import learning

        if self._assessed is not None:
            target = self.session.marks.settings.get("target")
            self.estimate = learning.as_json(self._assessed, self._origins, target)

    def _guarded(self, work: Callable[[], None]) -> None:
        lower_priority()
        try:
            work()
        except Exception as error:  # labelling goes on without it
            self.problem = f"no suggestions any more: {type(error).__name__}: {error}"
            self._log("".join(traceback.format_exception(error)))


def lower_priority() -> None:
    """Let this thread, and those that it starts, take processor time that nobody else wants."""
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        except OSError:
            return
