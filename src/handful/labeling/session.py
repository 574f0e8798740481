"""A labelling session: which image comes next, and what becomes of an answer.

A session knows neither the web nor torch. Its methods may be called from several threads.

A part of the images, the *random sample*, is set aside by a hash of their names. Its images come up
in the order of that hash, are always shown without a suggestion, and are in no page of tiles, so
that the labelled ones among them are a sample of the folder whatever else was chosen. Only their
labels feed the estimate.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handful.errors import HandfulError
from handful.files import replace, tidy
from handful.labeling.journal import Event, Journal
from handful.labeling.label_table import digest, write_labels
from handful.labeling.marks import (
    CLEAR,
    LABEL,
    Mark,
    Marks,
    as_event,
    class_name,
)
from handful.pipeline.typed_labels import put_aside
from handful.progress import Say, silent
from handful.text import counted

FOLDERS, LABELS = "folders", "labels"  # where imported labels are from
RANDOM_EVERY = 4  # every fourth image that comes up is of the random sample
SAMPLE_SHARE, SAMPLE_LEAST, SAMPLE_MOST = 0.1, 100, 500  # images of the random sample
RECENT = 12  # images answered last that can be opened again
LEASED = 64  # images that one tab may hold ahead, which no other tab gets
PAUSE = 0.3  # seconds between two writes of the label file
# When a page of a class is offered; from simulations, see benchmarks/log/labelling_page.md.
PAGE_LABELS = 8  # labels that the class has
PAGE_PRECISION = 0.7  # share of the guesses of this class that are right, on labels not seen
PAGE_SURE = 0.8  # mean confidence of the tiles
PAGE_TILE = 0.6  # confidence of the least sure tile
PAGE_LEAST = 4  # tiles
PAGE_LARGE = 0.95  # mean confidence of 48 tiles from which so many are offered, not 24
PAGE_SIZES = (24, 48)  # tiles of a page
PAGE_WRONG = 0.25  # share taken out of a page above which its class waits for more labels


@dataclass(frozen=True, eq=False)
class Opinion:
    """What the classifier says at one moment."""

    version: int
    classes: tuple[str, ...]
    row: np.ndarray  # (N,) int32: the image's row in `probabilities`, -1 where it has none yet
    probabilities: np.ndarray  # (M, K) float32, calibrated
    order: tuple[int, ...]  # images to label next, the most useful first
    changes: int = 0  # acts of the session that it knows of
    sure: bool = True  # whether there are labels of two classes, so that there are guesses
    # The classes and probabilities (M, L) of a classifier that knows no label of the random sample,
    # for suggestions; None if there are no other labels of two classes.
    suggested: tuple[tuple[str, ...], np.ndarray] | None = None

    def guess(self, number: int, but: Set[str] = frozenset()) -> tuple[str, float] | None:
        """The class to suggest for an image, but for those ruled out, and its probability.

        The classifier that suggests knows no label of the random sample. An annotator may follow
        a wrong suggestion, and these would be rarer near images of the sample: the estimate would
        be too high.
        """
        at = int(self.row[number])
        if self.suggested is None or at < 0:
            return None
        classes, probabilities = self.suggested
        shares = probabilities[at]
        if but:
            shares = shares.copy()
            shares[[k for k, name in enumerate(classes) if name in but]] = -1
        best = int(shares.argmax())
        return (classes[best], float(shares[best])) if shares[best] >= 0 else None


@dataclass
class _Tab:
    held: list[int] = field(default_factory=list)
    handed: int = 0


class Session:
    """Marks, journal, label file and queue of one annotator."""

    def __init__(
        self,
        names: Sequence[str],
        journal: Journal,
        table: Path,
        start: Mapping[str, Mark] | None = None,
        groups: Mapping[str, str] | None = None,
        hidden: frozenset[int] = frozenset(),
        classes: Sequence[str] = (),
        annotator: str = "",
        by_folder: Mapping[str, Mark] | None = None,
        named: Mapping[str, Mark] | None = None,
        no_classes: bool = False,
    ) -> None:
        """Take up the journal; `start` and `classes` are added where they are new.

        Nothing is written to the label file before there is an act of the annotator.

        Args:
            names: of the images, by number.
            table: the label file, which is kept up to date.
            start: marks of a label file or of folders. They replace those of the journal only if
                the label file was changed by someone else.
            groups: image name → group, written to the label file.
            hidden: numbers of images that do not come up, such as a test part.
            by_folder: labels that are names of folders. They are known at once, and kept with the
                first act of the annotator, who may say before that the folders are no classes.
            named: the labels that all folders would give if they were classes.
            no_classes: the folders are no classes: such labels of an earlier session are removed.
        """
        self.names = list(names)
        self.number = {name: at for at, name in enumerate(self.names)}
        self.groups = dict(groups or {})
        self.hidden = hidden
        self.annotator = annotator
        self.table = table
        self.opinion: Opinion | None = None
        self.unreadable: Mapping[int, str] = {}
        self.changed = threading.Event()  # set whenever marks change
        self.changes = 0  # acts since the start
        self._lock = threading.RLock()
        self._table_lock = threading.Lock()
        self._journal = journal
        self._tabs: dict[str, _Tab] = {}
        self._aside: dict[int, frozenset[str]] = {}  # image to come next → classes that it is not
        self.precision: Mapping[str, float] = {}  # class → share of its guesses that are right
        self._waits: dict[str, int] = {}  # class → labels from which its pages are offered again
        self._again: dict[int, None] = {}  # labelled images to be looked at again
        self._named = dict(named or {})
        self._of_folders = _imported(journal.events, self._named)  # images that got such a label
        self._pending: dict[str, Mark] = {}  # labels by folder that are not in the journal yet
        self.edited = ""  # where a label file is that was edited while the page was open
        self.say: Say = silent
        self.removed = 0  # labels by folder that were removed at the start
        self.marks = Marks()
        for event in journal.events:
            self.marks.apply(event)
        self.unwritten = bool(self.marks.written) and not table.exists()
        self._take_up(start or {}, classes, by_folder or {}, no_classes)
        self._order = in_random_order(self.names)
        self._deal()
        self._writer = _Writer(self)
        if self.unwritten:
            self._writer.wake.set()

    def _deal(self) -> None:
        """Set the random sample aside."""
        self.shuffled: list[int] = [n for n in self._order if n not in self.hidden]
        self.sample = frozenset(self.shuffled[: sample_size(len(self.shuffled))])

    def take_folders(
        self, marks: Mapping[str, Mark], groups: Mapping[str, str], hidden: frozenset[int]
    ) -> None:
        """Add what the folders say, once the user has told what they are.

        Labels that are names of folders, and no classes any more, are removed.
        """
        with self._lock:
            self.hidden, self.groups = hidden, {**groups, **self.groups}
            wrong = [name for name in self._by_folder() if marks.get(name) != self.marks.of[name]]
            if self._remove(wrong):
                self._changed(wrong)
            new = {name: mark for name, mark in marks.items() if name not in self.marks.of}
            if new:
                self._of_folders |= new.keys()
                self._apply(_of_folders(new))
            self._tabs = {}
            self._deal()

    # -- what comes up ---------------------------------------------------------------------------

    def next(self, tab: str, have: Sequence[int], count: int) -> list[dict[str, Any]]:
        """Up to `count` images for a tab that already holds `have`."""
        with self._lock:
            own = self._tabs.setdefault(tab, _Tab())
            own.held = [n for n in have if 0 <= n < len(self.names)][:LEASED]
            shown = []
            for _ in range(min(count, LEASED - len(own.held))):
                item = self._next_one(own)
                if item is None and len(self._tabs) > 1:  # what closed tabs held is free again
                    self._tabs = {tab: own}
                    item = self._next_one(own)
                if item is None:
                    break
                own.held.append(item["number"])
                own.handed += 1
                shown.append(item)
            return shown

    def _next_one(self, tab: _Tab) -> dict[str, Any] | None:
        taken = {number for other in self._tabs.values() for number in other.held}
        for number in list(self._again):
            if number not in taken:
                del self._again[number]
                return self.item_again(number)
        random = tab.handed % RANDOM_EVERY == 0
        ways = (self._random, self._chosen) if random else (self._chosen, self._random)
        for way in (*ways, self._rest):
            item = way(taken)
            if item is not None:
                return item
        return None

    def _random(self, taken: set[int]) -> dict[str, Any] | None:
        for number in self.shuffled[: len(self.sample)]:
            if self._open(number, taken):
                return self.item(number)
        return None

    def _chosen(self, taken: set[int]) -> dict[str, Any] | None:
        for number in list(self._aside):
            if self._open(number, taken):
                return self.item(number)
            if number not in taken:
                del self._aside[number]
        opinion = self.opinion
        for number in opinion.order if opinion is not None else ():
            if number not in self.sample and self._open(number, taken):
                return self.item(number)
        return None

    def _rest(self, taken: set[int]) -> dict[str, Any] | None:
        return next((self.item(n) for n in self.shuffled if self._open(n, taken)), None)

    def _open(self, number: int, taken: set[int]) -> bool:
        name = self.names[number]
        return not (name in self.marks.of or number in taken or number in self.unreadable)

    def item_again(self, number: int) -> dict[str, Any]:
        """A labelled image as a page shows it again: with its label, and without a suggestion."""
        mark = self.marks.of[self.names[number]]
        shown = {"number": number, "name": shown_name(self.names[number]), "suggestion": None}
        return {**shown, "confidence": None, "again": mark.label, "seen": mark.seen or "blind"}

    def item(self, number: int) -> dict[str, Any]:
        """An image as a page shows it; images of the random sample have no suggestion."""
        guess = None
        if self.opinion is not None and number not in self.sample:
            guess = self.opinion.guess(number, self._aside.get(number, frozenset()))
        return {
            "number": number,
            "name": shown_name(self.names[number]),
            "suggestion": guess and guess[0],
            "confidence": guess and round(guess[1], 4),
        }

    # -- answers ---------------------------------------------------------------------------------

    def answer(self, identity: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Record what was said of images, as one act that `undo` takes back.

        Args:
            identity: of the act. An act that was recorded already is not recorded again, so a
                page may send it again where an answer was lost.
            items: each with `number`, `kind`, `label` for kind "label", and `seen`.

        Raises:
            HandfulError: an item makes no sense.
            NotSaved: the journal cannot be written; nothing has changed.
        """
        with self._lock:
            marks: dict[str, Mark] = {}
            for item in items:
                name, mark = self._mark_of(item)
                marks[name] = mark
            return self._record({"do": "mark", "id": identity, "marks": as_event(marks)})

    def confirm(
        self, identity: str, items: Sequence[Mapping[str, Any]], out: Sequence[Mapping[str, Any]],
        of_class: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Record the confirmed tiles of a page, and put those that were taken out into the queue.

        Args:
            out: `number` and `label`, the class that the image is not.
            of_class: the page was of images that the classifier believes to be of one class. If
                many were not, no page of this class is offered before there are more labels.
        """
        with self._lock:
            removed = [(self.checked(item["number"]), item.get("label")) for item in out]
            found = self.answer(identity, items) if items else self.state()
            for number, label in removed:
                ruled_out = {label} if isinstance(label, str) else set()
                self._aside[number] = self._aside.get(number, frozenset()) | ruled_out
            if of_class and len(removed) > PAGE_WRONG * (len(removed) + len(items)):
                for _, label in removed:
                    self._waits[str(label)] = len(self.marks.of) + 2 * len(removed)
            return found

    def undo(self, identity: str) -> dict[str, Any]:
        """Take the last act back; `shown` has its images, if they are few."""
        with self._lock:
            if not self.marks.can_undo:
                return {"shown": [], "undone": False, **self.state()}
            changed = self._apply({"do": "undo", "id": identity})
            numbers = [self.number[name] for name in changed if name in self.number]
            again = [n for n in numbers if self.names[n] not in self.marks.of]
            shown = [self.item(n) for n in again[:1]]
            return {"shown": shown, "undone": True, **self.state()}

    def add_class(self, identity: str, given: object) -> str:
        """Add a class; return its name, or that of the class that is spelt alike."""
        with self._lock:
            name = class_name(given, self.marks.classes)
            if name not in self.marks.classes:
                self._apply({"do": "class", "id": identity, "name": name})
            return name

    def rename_class(self, identity: str, old: str, given: object) -> str:
        """Give a class another name; with the name of another class, both become one."""
        with self._lock:
            if old not in self.marks.classes:
                raise HandfulError(f"there is no class {old!r} to rename")
            new = class_name(given, [name for name in self.marks.classes if name != old])
            if new != old:
                self._apply({"do": "rename", "id": identity, "old": old, "new": new})
            return new

    def set(self, key: str, value: Any) -> None:
        """Keep a setting of the page with the journal."""
        with self._lock:
            self._apply({"do": "set", "key": key, "value": value})

    def look_again(self, numbers: Sequence[int]) -> None:
        """Let labelled images come up next, without a suggestion."""
        with self._lock:
            labeled = [n for n in numbers if self.names[self.checked(n)] in self.marks.of]
            self._again |= dict.fromkeys(labeled)

    def in_doubt(self, labels: Mapping[int, str]) -> list[int]:
        """Those of the images that still have the label given here, which nobody has confirmed."""
        with self._lock:
            of = self.marks.of
            return [
                number
                for number, label in labels.items()
                if (name := self.names[number]) in of
                and of[name].label == label
                and not of[name].confirmed
                and number not in self.hidden
            ]

    def _record(self, event: Event) -> dict[str, Any]:
        if event["id"] not in self.marks.seen_events:
            self._apply(event)
        return self.state()

    def _apply(self, event: Event) -> list[str]:
        if event["do"] != "set":
            self.settle()
        self.unwritten |= event["do"] not in ("set", "class")
        self._journal.append(event)
        changed = self.marks.apply(event)
        self._changed(changed)
        return changed

    def settle(self) -> None:
        """Keep the labels by folder: from here on the annotator has taken them for labels."""
        with self._lock:
            if self._pending:
                self._journal.append(_of_folders(self._pending))
                self._pending = {}

    def _by_folder(self) -> list[str]:
        """Names of the images whose label is the name of their folder, and of nobody."""
        of, named = self.marks.of, self._named
        return [name for name in self._of_folders if name in of and of[name] == named.get(name)]

    def _remove(self, names: Sequence[str]) -> int:
        """Remove labels by folder, and the classes that were in no other label."""
        if not names:
            return 0
        event = {"do": "import", "id": "", "from": FOLDERS, "drop": sorted(
            {str(self.marks.of[name].label) for name in names}
        ), "marks": as_event(dict.fromkeys(names, Mark(CLEAR)))}  # fmt: skip
        if not self._pending.keys() >= set(names):
            self.settle()
            self._journal.append(event)
            self.unwritten |= digest(self.table) in self.marks.written
        self._pending = {n: mark for n, mark in self._pending.items() if n not in set(names)}
        self.marks.apply(event)
        return len(names)

    def _changed(self, changed: Sequence[str]) -> None:
        """Tell tabs, learner and writer of the images that an act has changed."""
        self.changes += 1
        gone = {self.number.get(name) for name in changed}
        self._aside = {n: ruled_out for n, ruled_out in self._aside.items() if n not in gone}
        self._again = {number: None for number in self._again if number not in gone}
        for tab in self._tabs.values():
            tab.held = [number for number in tab.held if number not in gone]
        self.changed.set()
        if self.unwritten:
            self._writer.wake.set()

    def _mark_of(self, item: Mapping[str, Any]) -> tuple[str, Mark]:
        number = self.checked(item.get("number"))
        name, kind, seen = self.names[number], item.get("kind"), item.get("seen")
        if kind not in (LABEL, "unsure", "none", CLEAR) or seen not in (
            "blind",
            "suggested",
            "page",
        ):
            raise HandfulError("an answer has a kind and says what was seen; reload the page")
        label = class_name(item.get("label"), self.marks.classes) if kind == LABEL else None
        before = self.marks.of.get(name)
        if before is not None and label is not None and before.label == label:
            return name, before._replace(confirmed=True)  # how it came about does not change
        origin = "random" if number in self.sample and seen == "blind" else "chosen"
        if before is not None and before.origin == "unknown" and seen == "blind":
            origin = "unknown"  # a label of before, looked at again
        return name, Mark(kind, label, origin, seen, self.annotator)

    def checked(self, number: object) -> int:
        if isinstance(number, bool) or not isinstance(number, int):
            raise HandfulError("an image has a number; reload the page")
        if not 0 <= number < len(self.names) or number in self.hidden:
            raise HandfulError(f"there is no image {number} to label")
        return number

    # -- pages of tiles --------------------------------------------------------------------------

    def tiles(self, kind: str, value: object, size: int) -> dict[str, Any]:
        """A page of unlabelled images that the classifier believes to be of one class.

        Args:
            kind: "class" (of the class `value`, surest first) or "unsure" (those of which the
                classifier is least sure, each with its own guess).
            size: tiles.
        """
        with self._lock:
            opinion = self.opinion
            numbers, guess, confidence = self._candidates(opinion)
            if opinion is None or not len(numbers):
                return {"label": None, "tiles": []}
            label = None
            if kind == "class":
                label = class_name(value, self.marks.classes)
                if label not in opinion.classes:
                    return {"label": label, "tiles": []}
                mine = self._believed(label, numbers, guess, opinion)
                picked = mine[np.argsort(-confidence[mine], kind="stable")][:size]
            else:
                picked = np.argsort(confidence, kind="stable")[:size]
            return {
                "label": label,
                "tiles": [
                    self._tile(int(numbers[at]), opinion.classes[int(guess[at])]) for at in picked
                ],
            }

    def tiles_of(self, numbers: Sequence[int], label: str | None) -> list[dict[str, Any]]:
        """Tiles of unlabelled images outside of the random sample."""
        with self._lock:
            return [
                self._tile(n, label)
                for n in numbers
                if n not in self.sample and n not in self.hidden and self._open(n, set())
            ]

    def offers(self, size: int | None = None) -> list[dict[str, Any]]:
        """Classes of which a page of sure tiles is at hand, the largest and surest first.

        Args:
            size: tiles at most; None: 24, and 48 where these are sure enough.
        """
        with self._lock:
            opinion = self.opinion
            numbers, guess, confidence = self._candidates(opinion)
            counts, found = self.marks.counts(), []
            for name in opinion.classes if opinion is not None else ():
                if (
                    counts[name] < PAGE_LABELS
                    or self.precision.get(name, 0.0) < PAGE_PRECISION
                    or len(self.marks.of) < self._waits.get(name, 0)
                ):
                    continue
                mine = self._believed(name, numbers, guess, opinion)
                best = np.sort(confidence[mine])[::-1]
                best = best[best >= PAGE_TILE][: size or PAGE_SIZES[1]]
                if size is None and len(best) and best.mean() < PAGE_LARGE:
                    best = best[: PAGE_SIZES[0]]
                if len(best) >= PAGE_LEAST and best.mean() >= PAGE_SURE:
                    found.append({"label": name, "tiles": len(best), "sure": float(best.mean())})
            return sorted(found, key=lambda row: (-row["tiles"], -row["sure"]))

    def _believed(
        self, label: str, numbers: np.ndarray, guess: np.ndarray, opinion: Opinion | None
    ) -> np.ndarray:
        """Positions of the candidates of a class, but for those that were taken out of its page."""
        assert opinion is not None
        mine = np.flatnonzero(guess == opinion.classes.index(label))
        out = [n for n, ruled_out in self._aside.items() if label in ruled_out]
        return mine[~np.isin(numbers[mine], out)]

    def _candidates(self, opinion: Opinion | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers, likeliest classes and confidences of the images that may be in a page."""
        none = np.empty(0, np.int64)
        if opinion is None or not opinion.sure:
            return none, none, np.empty(0, np.float32)
        open_ = opinion.row >= 0
        marked = [self.number[name] for name in self.marks.of if name in self.number]
        for some in (marked, list(self.sample), list(self.unreadable), list(self.hidden)):
            open_[some] = False
        numbers = np.flatnonzero(open_)
        shares = opinion.probabilities[opinion.row[numbers]]
        if not len(numbers):
            return none, none, np.empty(0, np.float32)
        return numbers, shares.argmax(axis=1), shares.max(axis=1)

    def _tile(self, number: int, label: str | None) -> dict[str, Any]:
        return {"number": number, "name": shown_name(self.names[number]), "label": label}

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Counts for the page."""
        with self._lock:
            counts = self.marks.counts()
            kinds: Counter[tuple[str, bool]] = Counter()
            left = len(self.shuffled) - len(self.unreadable)
            for name, mark in self.marks.of.items():
                kinds[mark.kind, mark.origin == "random"] += 1
                left -= self.number.get(name, -1) not in self.hidden and name in self.number
            return {
                "images": len(self.shuffled),
                "labels": kinds[LABEL, True] + kinds[LABEL, False],
                "unsure": kinds["unsure", True] + kinds["unsure", False],
                "none": kinds["none", True] + kinds["none", False],
                "blind": kinds[LABEL, True],
                "blind_skipped": kinds["unsure", True] + kinds["none", True],
                "left": max(left, 0),
                "classes": [{"name": name, "labels": counts[name]} for name in self.marks.classes],
                "by_folder": len(self._by_folder()),
                "undo": self.marks.can_undo,
                "recent": self._recent(),
                "fresh": self.opinion is not None and self.opinion.changes == self.changes,
                "table": str(self.table),
                "problem": self._writer.problem or self.edited,
            }

    def _recent(self) -> list[dict[str, Any]]:
        """The images answered last, the latest first, each with its answer and what was seen.

        There is no guess of the classifier in it: a label of the random sample that is changed
        here was still given without one.
        """
        found = []
        for name in self.marks.recent(RECENT):
            number, mark = self.number.get(name), self.marks.of[name]
            if number is not None and number not in self.hidden:
                shown = {"number": number, "name": shown_name(name), "kind": mark.kind}
                found.append({**shown, "label": mark.label, "seen": mark.seen or "blind"})
        return found

    def snapshot(self) -> tuple[dict[int, Mark], tuple[str, ...]]:
        """The marks by number, and the classes, for a thread that learns of them."""
        with self._lock:
            marks = {self.number[n]: m for n, m in self.marks.of.items() if n in self.number}
            return marks, tuple(self.marks.classes)

    def wanted(self) -> list[int]:
        """Images whose features are needed first: those labelled, held by tabs, or next."""
        with self._lock:
            labeled = [self.number[name] for name in self.marks.of if name in self.number]
            held = [number for tab in self._tabs.values() for number in tab.held]
            return [*labeled, *held]

    def close(self) -> None:
        """Write the label file and release the journal."""
        self._writer.stop()
        self._journal.close()

    # -- start and label file --------------------------------------------------------------------

    def _take_up(
        self,
        start: Mapping[str, Mark],
        classes: Sequence[str],
        by_folder: Mapping[str, Mark],
        no_classes: bool,
    ) -> None:
        own = digest(self.table)
        self._found_at_start = {own}
        edited = own is not None and own not in self.marks.written
        first = not any(event["do"] != "set" for event in self._journal.events)
        known = self.marks.of
        new = {
            name: mark
            for name, mark in start.items()
            if (known.get(name) != mark if edited or first else False)
        }
        if new:
            event = {"do": "import", "id": "", "from": LABELS, "marks": as_event(new)}
            self._apply_quietly(event)
        if no_classes:
            self.removed = self._remove(self._by_folder())
        elif first and not new:
            self._pending = dict(by_folder)
            self._of_folders |= by_folder.keys()
            self.marks.apply(_of_folders(self._pending))
        for name in classes:
            given = class_name(name, self.marks.classes)
            if given not in self.marks.classes:
                self._apply_quietly({"do": "class", "id": "", "name": given})

    def _apply_quietly(self, event: Event) -> None:
        self._journal.append(event)
        self.marks.apply(event)

    def write_table(self) -> None:
        """Replace the label file by one of the present marks.

        The hash is in the journal before the file has its name: at the next start, a file of
        another hash was edited by someone else.
        """
        with self._table_lock:
            self.settle()
            with self._lock:
                self.unwritten = False
                marks, groups = dict(self.marks.of), self.groups
            staged = self.table.with_name(f".{self.table.name}.new")
            tidy(staged.parent, staged.name)
            write_labels(staged, marks, groups)
            sha256 = digest(staged)
            assert sha256 is not None
            with self._lock:
                if sha256 not in self.marks.written:
                    self._apply_quietly({"do": "written", "sha256": sha256})
            found = digest(self.table)
            if found is not None and found not in self.marks.written | self._found_at_start:
                kept = put_aside(self.table, "edited elsewhere")
                self.edited = (
                    f"{self.table} was edited while the page was open; the edited file is {kept}"
                )
                self.say(self.edited)
            replace(staged, self.table)


class _Writer:
    """A thread that writes the label file whenever marks have changed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.wake = threading.Event()
        self.problem = ""
        self._ended = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="labels.csv")
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.wake.wait()
            self.wake.clear()
            if self._ended:
                return
            self._write()
            self._end.wait(PAUSE)

    def _write(self) -> None:
        try:
            self.session.write_table()
            self.problem = ""
        except (OSError, HandfulError) as error:
            self.session.unwritten = True
            self.problem = f"{self.session.table} cannot be written: {error}"

    def stop(self) -> None:
        self._ended = True
        self._end.set()
        self.wake.set()
        self._thread.join()
        if self.session.unwritten:
            self._write()


def _of_folders(marks: Mapping[str, Mark]) -> Event:
    """The event of labels that are names of folders."""
    return {"do": "import", "id": "", "from": FOLDERS, "marks": as_event(marks)}


def _imported(events: Sequence[Event], named: Mapping[str, Mark]) -> set[str]:
    """Names of the images that a journal gives the name of their folder as label.

    Journals of earlier versions do not say what an import is of: all its labels are then compared
    with the names of the folders.
    """
    found: set[str] = set()
    for event in events:
        if event["do"] != "import":
            continue
        of = {row["file"]: row["label"] for row in event["marks"] if row["kind"] == LABEL}
        source = event.get("from")
        if source == FOLDERS or (
            source is None and all(n in named and named[n].label == of[n] for n in of)
        ):
            found |= of.keys()
    return found


def sample_size(images: int) -> int:
    """Images of the random sample among so many."""
    wanted = min(max(SAMPLE_LEAST, round(SAMPLE_SHARE * images)), SAMPLE_MOST)
    return max(min(wanted, images // 3), min(images, 1))


def in_random_order(names: Sequence[str]) -> list[int]:
    """Numbers of the names in a random order that is always the same; see `Session`."""
    ranks = np.array([_rank(name) for name in names], np.uint64)
    return np.argsort(ranks, kind="stable").tolist()


def _rank(name: str) -> int:
    """A number that is random, and the same for the same name whatever else is in the folder."""
    content = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=b"sample").digest(), "big")


def shown_name(name: str) -> str:
    """A file name as text of a page: what is no valid Unicode is replaced."""
    return name.encode("utf-8", "replace").decode("utf-8")


def summary(session: Session) -> str:
    """What a session leaves, in one sentence."""
    state = session.state()
    if not session.table.exists():
        return f"no label was given, so {session.table} was not written"
    number = counted(state["labels"], "label")
    return f"{number} {'is' if state['labels'] == 1 else 'are'} in {session.table}"
