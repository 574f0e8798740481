"""When is a page of tiles worth offering? Keys per label, simulated without a browser.

    python -m benchmarks run page_policy sign-digits
    python -m benchmarks run page_policy sign-digits --sure 0.9 --labels 2 --precision 0 --wrong 1

All labelled images of the source are labelled in the page's own `Session`: a page of tiles whenever
one is offered, else the next image. An annotator who knows the labels presses one key for an image,
and for a page one for each wrong tile and one to confirm; a new class is typed. The options replace
the limits of `session`, so that policies can be compared. Features are taken to 256 coordinates
first, and the estimate is made anew when the labels have grown by a third: both save time.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.labeling.sessions import NoJournal, NoWriter, source_features
from benchmarks.lib import arguments, record
from handful.errors import HandfulError
from handful.labeling import learning
from handful.labeling import session as sessions
from handful.labeling.opinions import labeled_rows, opinion_of
from handful.labeling.session import Session

REFIT = 8  # images labelled one by one between two refits
LIMITS = {
    "labels": "PAGE_LABELS",
    "precision": "PAGE_PRECISION",
    "sure": "PAGE_SURE",
    "tile": "PAGE_TILE",
    "least": "PAGE_LEAST",
    "large": "PAGE_LARGE",
    "wrong": "PAGE_WRONG",
}


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("source")
    parser.add_argument("--tiles", type=int, choices=(24, 48), help="by default as offered")
    parser.add_argument("--draws", type=int, default=1)
    for option in LIMITS:
        parser.add_argument(f"--{option}", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sessions._Writer = NoWriter  # type: ignore[assignment, misc]
    for option, name in LIMITS.items():
        if getattr(options, option) is not None:
            setattr(sessions, name, getattr(options, option))
    x, labels, classes = source_features(options.source)
    limits = {option: getattr(sessions, name) for option, name in LIMITS.items()}
    for draw in range(1000, 1000 + options.draws):
        figures = {**limits, "tiles": options.tiles, "draw": draw}
        figures |= Simulation(x, labels, classes, draw, options.tiles).run()
        record.append("label", f"page policy {options.source}", "dev", figures)
        print(figures, flush=True)


class Simulation:
    """One annotator, from the first label to the last."""

    def __init__(
        self, x: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...], draw: int,
        tiles: int | None,
    ) -> None:  # fmt: skip
        self.x = learning.map_of(x).of(x.float()).half()
        self.truth = [classes[label] for label in labels]
        names = [f"{draw}/{number}.png" for number in range(len(labels))]
        self.session = Session(names, NoJournal(), Path("/nowhere/labels.csv"))  # type: ignore[arg-type]
        self.row, self.at = np.arange(len(labels), dtype=np.int32), list(range(len(labels)))
        self.coordinates = learning.map_of(self.x)
        self.tiles, self.temperature, self.assessed_at, self.version = tiles, 1.0, 0, 0
        self.keys = self.ones = self.shown = self.out = 0
        self.precisions: list[float] = []

    def run(self) -> dict[str, Any]:
        start, known, in_pages, first = time.perf_counter(), set(), False, None
        while True:
            offers = self.session.offers(self.tiles)
            if offers:
                self.keys += not in_pages
                first = len(self.session.marks.of) if first is None else first
                self._page(offers[0])
                in_pages = True
                continue
            in_pages = False
            items = self.session.next("tab", [], 1)
            if not items:
                break
            label = self.truth[items[0]["number"]]
            self.keys += 1 if label in known else len(label) + 2
            known.add(label)
            self._one(items[0], label)
        count = len(self.session.marks.of)
        return {
            "labels": count,
            "keys": self.keys,
            "keys_per_label": round(self.keys / count, 4),
            "pages": len(self.precisions),
            "taken_out": self.out,
            "one_by_one": self.ones,
            "blind": sum(mark.origin == "random" for mark in self.session.marks.of.values()),
            "labels_before_the_first_page": first,
            "pages_with_a_quarter_wrong": sum(share < 0.75 for share in self.precisions),
            "seconds": round(time.perf_counter() - start, 1),
        }

    def _page(self, offer: dict[str, Any]) -> None:
        label = offer["label"]
        tiles = self.session.tiles("class", label, offer["tiles"])["tiles"]
        right = [tile for tile in tiles if self.truth[tile["number"]] == label]
        wrong = [tile for tile in tiles if self.truth[tile["number"]] != label]
        items = [
            {"number": t["number"], "kind": "label", "label": label, "seen": "page"} for t in right
        ]
        self.session.confirm(f"p{len(self.precisions)}", items, wrong, of_class=True)
        self.keys += 1 + len(wrong)
        self.shown += len(tiles)
        self.out += len(wrong)
        self.precisions.append(len(right) / len(tiles))
        self._refit()

    def _one(self, item: dict[str, Any], label: str) -> None:
        seen = "blind" if item["suggestion"] is None else "suggested"
        answer = {"number": item["number"], "kind": "label", "label": label, "seen": seen}
        self.session.answer(f"o{self.ones}", [answer])
        self.ones += 1
        if self.ones % REFIT == 0:
            self._refit()

    def _refit(self) -> None:
        self.version += 1
        found = labeled_rows(self.session, self.row)
        if found is not None and 3 * len(found.labels) >= 4 * self.assessed_at:
            rows = self.x[found.rows.tolist()]
            try:
                assessed = learning.assess(
                    rows, found.labels, found.origins, len(found.classes), found.groups
                )
                self.assessed_at, self.temperature = len(found.labels), assessed.temperature
                self.session.precision = assessed.precision(found.classes)
            except HandfulError:
                pass
        self.session.opinion = opinion_of(
            self.session, self.x, self.row, self.at, self.coordinates, self.temperature,
            self.version,
        )  # fmt: skip


if __name__ == "__main__":
    main()
