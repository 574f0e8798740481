"""What is known of each image: its label, how it came up, and what the annotator saw.

`Marks` is made of the events of a journal, one by one, and can take acts back without limit. It
knows neither files nor the page.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from handful.data.class_names import normalized
from handful.errors import HandfulError

LABEL, UNSURE, NONE, CLEAR = "label", "unsure", "none", "clear"
KINDS = (LABEL, UNSURE, NONE, CLEAR)
SEEN = ("", "blind", "suggested", "page")
ORIGINS = ("random", "chosen", "unknown")
LONGEST_NAME = 100  # characters of a class name
MOST_CLASSES = 2_000


class Mark(NamedTuple):
    """What an annotator said of one image."""

    kind: str = LABEL  # LABEL, UNSURE or NONE ("none of these classes")
    label: str | None = None  # the class, if `kind` is LABEL
    origin: str = "unknown"  # how the image came up: "random", "chosen" or "unknown"
    seen: str = ""  # "blind", "suggested", "page", or "" where it is not known
    by: str = ""  # the annotator
    confirmed: bool = False  # whether the annotator gave the same label again: it stands


class _Done(NamedTuple):
    """An act that can be taken back: what it replaced."""

    event: str  # its id
    before: dict[str, Mark | None]
    classes: list[str] | None = None  # before the act, if it changed those that there were


@dataclass
class Marks:
    """The marks of all images by file name, and the classes in the order of their keys."""

    of: dict[str, Mark] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)  # hashes of the label files that were written
    seen_events: set[str] = field(default_factory=set)
    _done: list[_Done] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> list[str]:
        """Carry out one event; return the names of the images that it changed."""
        identity = str(event.get("id", ""))
        if identity:
            self.seen_events.add(identity)
        match event["do"]:
            case "mark":
                return self._mark(identity, _read_marks(event["marks"]), undoable=True)
            case "import":
                changed = self._mark(identity, _read_marks(event["marks"]), undoable=False)
                self._drop_classes(event.get("drop", ()))
                return changed
            case "class":
                self.add_class(event["name"])
            case "rename":
                return self._rename(identity, event["old"], event["new"])
            case "undo":
                return self._undo()
            case "set":
                self.settings[event["key"]] = event["value"]
            case "written":
                self.written.add(event["sha256"])
        return []

    def add_class(self, name: str) -> None:
        """Add a class at the end, if it is new."""
        if name not in self.classes:
            if len(self.classes) >= MOST_CLASSES:
                raise HandfulError(f"{MOST_CLASSES} classes are the most; merge some")
            self.classes.append(name)

    def _drop_classes(self, names: Iterable[str]) -> None:
        """Remove classes that have no label any more."""
        gone = set(names) - self.counts().keys()
        self.classes = [name for name in self.classes if name not in gone]

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    def labeled(self) -> dict[str, str]:
        """Image name → class, of the images that have one."""
        return {name: mark.label for name, mark in self.of.items() if mark.label is not None}

    def counts(self) -> Counter[str]:
        """Labels of each class."""
        return Counter(mark.label for mark in self.of.values() if mark.label is not None)

    def recent(self, count: int) -> list[str]:
        """Names of the images that were marked last and still are, the latest first."""
        found: dict[str, None] = {}
        for act in reversed(self._done):
            if act.classes is None:  # a renamed class is no answer to an image
                found |= dict.fromkeys(name for name in reversed(act.before) if name in self.of)
            if len(found) >= count:
                break
        return list(found)[:count]

    def _mark(self, identity: str, marks: Mapping[str, Mark], undoable: bool) -> list[str]:
        before = {name: self.of.get(name) for name in marks}
        if undoable:
            self._done.append(_Done(identity, before))
        for name, mark in marks.items():
            if mark.kind == CLEAR:
                self.of.pop(name, None)
                continue
            if mark.label is not None:
                self.add_class(mark.label)
            self.of[name] = mark._replace(confirmed=_stands(before[name], mark, undoable))
        return list(marks)

    def _rename(self, identity: str, old: str, new: str) -> list[str]:
        changed = {name: mark for name, mark in self.of.items() if mark.label == old}
        self._done.append(_Done(identity, {**changed}, list(self.classes)))
        if new in self.classes:
            self.classes = [name for name in self.classes if name != old]
        else:
            self.classes = [new if name == old else name for name in self.classes]
        for name, mark in changed.items():
            self.of[name] = mark._replace(label=new)
        return list(changed)

    def _undo(self) -> list[str]:
        if not self._done:
            return []
        last = self._done.pop()
        for name, mark in last.before.items():
            if mark is None:
                self.of.pop(name, None)
            else:
                self.of[name] = mark
        if last.classes is not None:
            added = [name for name in self.counts() if name not in last.classes]
            self.classes = last.classes + added
        return list(last.before)


def _stands(before: Mark | None, mark: Mark, by_hand: bool) -> bool:
    """Whether a label is confirmed: by the file that it is from, or given by hand once more."""
    if before is None or mark.label is None:
        return mark.confirmed
    return mark.label == before.label and (by_hand or mark.confirmed or before.confirmed)


def as_event(marks: Mapping[str, Mark]) -> list[dict[str, Any]]:
    """Marks as an event holds them."""
    return [
        {"file": name, "kind": mark.kind, "label": mark.label or "", "origin": mark.origin,
         "seen": mark.seen, "by": mark.by} | ({"confirmed": True} if mark.confirmed else {})
        for name, mark in marks.items()
    ]  # fmt: skip


def _read_marks(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mark]:
    return {
        row["file"]: Mark(row["kind"], row["label"] or None, row["origin"], row["seen"], row["by"],
                          bool(row.get("confirmed")))
        for row in rows
    }  # fmt: skip


def class_name(given: object, known: Iterable[str]) -> str:
    """The class that was typed: a known one of that spelling but for letter case, or a new one.

    Raises:
        HandfulError: the name is empty or too long.
    """
    name = normalized(given) if isinstance(given, str) else ""
    if not name:
        raise HandfulError("a class needs a name; type one or more letters")
    known = list(known)
    if name in known or given in known:
        return name if name in known else str(given)
    if len(name) > LONGEST_NAME:
        raise HandfulError(f"a class name has {LONGEST_NAME} characters at most, got {len(name)}")
    if not name.isprintable():
        raise HandfulError("a class name is text that can be printed")
    return next((other for other in known if other.casefold() == name.casefold()), name)
