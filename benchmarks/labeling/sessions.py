"""Simulated sessions of the labelling page: does its interval hold the truth, and do labels pay?

    python -m benchmarks run sessions coverage --part dev
    python -m benchmarks run sessions coverage --part final --sources tin10 mnist sign-digits
    python -m benchmarks run sessions follow   --part final --sources tin10
    python -m benchmarks run sessions curve    --part final --sources tin10

The session is the page's own (`Session`, `opinion_of`, `assess`); only keys, files and threads are
left out. An annotator who knows the labels answers what comes up. A session labels from a pool of
1,000 images, another sample and order for every draw. The truth is the accuracy of the page's head,
fitted to the labels of the session, on all other images of the source.

    coverage   sessions of 40 to 100 labels: how often the 90 % interval holds the truth
    follow     the annotator takes a wrong suggestion one time in five
    curve      accuracy against labels, beside labels of images drawn at random
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import handful
from benchmarks.lib import arguments, record
from handful.data.cache import data_folder
from handful.data.imageset import ImageSet
from handful.evaluation.metrics import wilson
from handful.labeling import learning
from handful.labeling import session as sessions
from handful.labeling.opinions import feature_network, labeled_rows, opinion_of
from handful.labeling.session import Session
from handful.models.feature_cache import features

POOL = 1_000
FIRST = 8  # labels before the classifier says anything
EVERY = 8  # labels between two refits
FOLLOWED = 0.2
CURVE = (16, 24, 40, 64, 100, 150, 200)
MOST = 6_000  # images of a source


class NoJournal:
    """A journal that keeps nothing."""

    events: list[dict[str, Any]] = []

    def append(self, event: dict[str, Any]) -> None:
        return

    def close(self) -> None:
        return


class NoWriter:
    """A writer of the label file that writes nothing."""

    problem = ""

    def __init__(self, session: Session) -> None:
        self.wake = self

    def set(self) -> None:
        return


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("what", choices=("coverage", "follow", "curve"))
    parser.add_argument("--part", choices=("dev", "final"), default="dev")
    parser.add_argument("--sources", nargs="+", default=["tin10", "mnist", "sign-digits"])
    parser.add_argument("--draws", type=int, default=0, help="by default 100, or 10 of curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sessions._Writer = NoWriter  # type: ignore[assignment, misc]
    first = 1000 if options.part == "dev" else 0
    for source in options.sources:
        x, labels, classes = source_features(source)
        draws = range(first, first + (options.draws or (10 if options.what == "curve" else 100)))
        figures = {
            "coverage": coverage,
            "follow": lambda *given: coverage(*given, followed=FOLLOWED),
            "curve": curve,
        }[options.what](x, labels, classes, draws)
        record.append("label", f"{options.what} {source}", options.part, figures)
        print(source, figures, flush=True)


def source_features(source: str) -> tuple[torch.Tensor, np.ndarray, tuple[str, ...]]:
    """Features (N, D) float16 of the page's network, labels (N,), and names of the classes."""
    folder = data_folder() / source
    images = handful.load(folder if folder.is_dir() else source)
    parts = [images[images.labeled]] + ([images.test] if images.test is not None else [])
    if len(parts[0]) > MOST:  # the test part alone is enough
        parts = parts[1:]
    rows, labels = [], []
    for part in parts:
        some = part[: min(len(part), MOST)]
        rows.append(embedded(some))
        labels.append(some.labels)
    return torch.cat(rows), np.concatenate(labels), images.classes


def embedded(images: ImageSet) -> torch.Tensor:
    network, size = feature_network(images)
    return features(images, network, size)


def coverage(
    x: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...], draws: range,
    followed: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """How often the interval held the truth, how wide it was, and the mean error."""
    rows, start = [], time.perf_counter()
    for draw in draws:
        random = np.random.default_rng([draw, 1])
        count = int(random.integers(40, 101))
        row = one_session(x, labels, classes, draw, count, followed)
        if row is not None:
            rows.append(row)
        if len(rows) % 10 == 0:
            print(len(rows), np.mean([r["inside"] for r in rows]), flush=True)
    inside = np.array([row["inside"] for row in rows])
    low, high = wilson(float(inside.mean()), len(inside), 0.95)
    return {
        "sessions": len(rows),
        "without_estimate": len(draws) - len(rows),
        "inside": round(float(inside.mean()), 4),
        "inside_low": round(low, 4),
        "inside_high": round(high, 4),
        "error": round(float(np.mean([row["estimate"] - row["truth"] for row in rows])), 4),
        "width": round(float(np.mean([row["width"] for row in rows])), 4),
        "truth": round(float(np.mean([row["truth"] for row in rows])), 4),
        "blind_labels": round(float(np.mean([row["blind"] for row in rows])), 1),
        "wrong_labels": round(float(np.mean([row["wrong"] for row in rows])), 2),
        "seconds": round(time.perf_counter() - start, 1),
    }


def one_session(
    x: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...], draw: int, count: int,
    followed: float,
) -> dict[str, float] | None:  # fmt: skip
    """One session of `count` labels; None if its labels allow no estimate."""
    pool, session = new_session(len(labels), draw)
    wrong = labelled(session, x[pool], labels[pool], classes, count, draw, followed)
    row = np.arange(len(pool), dtype=np.int32)
    found = labeled_rows(session, row)
    if found is None:
        return None
    assessed = learning.assess(x[pool][found.rows.tolist()], found.labels, found.origins,
                               len(found.classes))  # fmt: skip
    one = assessed.estimate
    if one.accuracy is None:
        return None
    truth = true_accuracy(x, labels, classes, pool, found)
    return {
        "truth": truth,
        "estimate": one.accuracy,
        "inside": float(one.low <= truth <= one.high),
        "width": one.high - one.low,
        "blind": sum(origin == "random" for origin in found.origins),
        "wrong": wrong,
    }


def true_accuracy(
    x: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...], pool: np.ndarray, found: Any
) -> float:
    """Accuracy of the head of these labels on all images that have none."""
    inside = torch.from_numpy(found.labels)
    head = learning.fit_head(x[pool[found.rows]], inside, len(found.classes))
    rest = np.setdiff1d(np.arange(len(labels)), pool[found.rows])
    guess = head(x[rest]).argmax(dim=1).numpy()
    names = np.array(found.classes)
    return float((names[guess] == np.array(classes)[labels[rest]]).mean())


def new_session(count: int, draw: int) -> tuple[np.ndarray, Session]:
    """Positions of the pool, and a session of it whose random sample differs between draws."""
    pool = np.random.default_rng([draw, 0]).permutation(count)[:POOL]
    names = [f"{draw}/{position}.png" for position in pool]
    return pool, Session(names, NoJournal(), Path("/nowhere/labels.csv"))  # type: ignore[arg-type]


def labelled(
    session: Session, x: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...], count: int,
    draw: int, followed: float, random_only: bool = False,
) -> int:  # fmt: skip
    """Label `count` images of the session; return the number of wrong labels."""
    random = np.random.default_rng([draw, 2])
    row, at = np.arange(len(labels), dtype=np.int32), list(range(len(labels)))
    coordinates = learning.map_of(x)
    wrong = 0
    done = len(session.marks.of)
    for step in range(done, count):
        if step >= FIRST and step % EVERY == 0 and not random_only:
            session.opinion = opinion_of(session, x, row, at, coordinates, 1.0, step)
        items = session.next("tab", [], 1)
        item = items[0]
        truth = classes[labels[item["number"]]]
        given = truth
        guess = item["suggestion"]
        if guess is not None and guess != truth and random.random() < followed:
            given, wrong = guess, wrong + 1
        seen = "blind" if guess is None else "suggested"
        answer = {"number": item["number"], "kind": "label", "label": given, "seen": seen}
        session.answer(f"{draw}-{step}", [answer])
    return wrong


def curve(
    x: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...], draws: range
) -> dict[str, Any]:
    """Mean accuracy at CURVE labels of the page's order and of random order, paired by draw."""
    ways: dict[str, list[list[float]]] = {"page": [], "random": []}
    for draw in draws:
        for way, rows in ways.items():
            pool, session = new_session(len(labels), draw)
            if way == "random":
                session.sample = frozenset(range(len(pool)))
            accuracies = []
            for count in CURVE:
                labelled(session, x[pool], labels[pool], classes, count, draw, 0.0, way == "random")
                found = labeled_rows(session, np.arange(len(pool), dtype=np.int32))
                accuracies.append(
                    float("nan") if found is None
                    else true_accuracy(x, labels, classes, pool, found)
                )  # fmt: skip
            rows.append(accuracies)
        print(draw, [rows[-1] for rows in ways.values()], flush=True)
    page, random = (np.array(ways[way]) for way in ("page", "random"))
    gap = page - random
    return {
        "labels": list(CURVE),
        "page": [round(float(v), 4) for v in page.mean(axis=0)],
        "random": [round(float(v), 4) for v in random.mean(axis=0)],
        "difference": [round(float(v), 4) for v in gap.mean(axis=0)],
        "spread": [round(float(v), 4) for v in gap.std(axis=0, ddof=1) / np.sqrt(len(gap))],
        "draws": len(gap),
    }


if __name__ == "__main__":
    main()
