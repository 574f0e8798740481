"""Format numbers, times and suggestions for messages, and make text safe for a terminal."""

import difflib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from handful.errors import HandfulError

NBSP = "\N{NO-BREAK SPACE}"
LONGEST = 36_000_000.0  # seconds; the longest time that can be typed
# C0 and C1 control characters, characters that reorder text, break lines or are invisible, and
# surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]"
)


def for_terminal(text: str) -> str:
    """The text in one line, with control and invisible characters as \\x1b or \\u202e."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(number)
    return short or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def as_json_line(value: Any) -> str:
    """One line of JSON without characters that control a terminal."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def did_you_mean(given: str, known: Iterable[str], most: int = 1) -> str:
    """A question such as " Did you mean 'fixmatch'?", or "" if no known name is similar.

    Args:
        most: names suggested, at most.
    """
    close = difflib.get_close_matches(given, list(known), n=most)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def similar_file(path: Path) -> str:
    """The end of a sentence: the question of `did_you_mean` about what lies beside a lost path."""
    try:
        beside = [found.name for found in path.parent.iterdir()]
    except OSError:
        return ""
    question = did_you_mean(path.name, beside)
    return f".{question}" if question else ""


def some_of(texts: Sequence[str], most: int) -> str:
    """Texts in a row, about `most` of them at most: "a, b and 3 more", but never "and 1 more"."""
    if len(texts) <= most + 1:
        return ", ".join(texts)
    return f"{', '.join(texts[:most])} and {len(texts) - most} more"


def name_in_text(name: str) -> str:
    """A name as it stands in a sentence: in quotes where it would be read as a number."""
    number = any(map(str.isdigit, name)) and not any(map(str.isalpha, name))
    return f"'{name}'" if number else name


def some_names(names: Iterable[str], most: int) -> str:
    """Names in a row as in `some_of`, each as in `name_in_text`: "cat, '7' and 3 more"."""
    return some_of([*map(name_in_text, names)], most)


def as_html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A small table for a notebook, with all text escaped."""
    lines = [f"<p>{escape(title)}</p>", "<table>"]
    for tag, cells in [("th", header), *(("td", row) for row in rows)]:
        shown = "".join(f"<{tag}>{escape(for_terminal(cell))}</{tag}>" for cell in cells)
        lines.append(f"<tr>{shown}</tr>")
    return "\n".join([*lines, "</table>"])


def duration(seconds: float) -> str:
    """A rough time: "95 s" or "12 min"."""
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def in_seconds(text: str) -> float:
    """The seconds in a typed time: 90s, 10m, 1.5h; without a unit, seconds.

    HandfulError for other text and for times above LONGEST.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip())
    if found is None or not float(found[1]):
        raise HandfulError(f"a time is typed as 90s, 10m or 1.5h, got {text!r}")
    seconds = float(found[1]) * {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}[found[2]]
    if seconds > LONGEST:
        raise HandfulError(f"a time is 10,000 hours at most, got {text[:40]!r}")
    return seconds


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] in percent: "81.3 %"; a dash for None."""
    return "–" if share is None else f"{100 * float(share):.{digits}f}{NBSP}%"


def sure(confidence: float, digits: int = 0) -> str:
    """A confidence in percent, which is never 100: "97 %" or "over 99 %"."""
    most = 1 - 0.1**digits / 200  # from here on it would be rounded to 100
    if confidence < most:
        return percent(confidence, digits)
    return f"over {percent(1 - 0.1**digits / 100, digits)}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign: "+1.2"; a dash for None."""
    if difference is None:
        return "–"
    text = f"{100 * float(difference):+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def span(low: float | None, high: float | None) -> str:
    """An interval of shares in percent: "75.0 to 86.1 %"; a dash for None."""
    if low is None or high is None:
        return "–"
    return f"{100 * float(low):.1f} to {100 * float(high):.1f}{NBSP}%"


def time(seconds: float) -> str:
    """A time in its natural unit: "under 0.1 s", "9.5 s", "12.3 min" or "2.1 h"."""
    seconds = float(seconds)
    if seconds < 0.05:
        return f"under 0.1{NBSP}s"
    if seconds < 100:
        return f"{seconds:.0f}{NBSP}s" if seconds >= 10 else f"{seconds:.1f}{NBSP}s"
    if seconds < 5400:
        return f"{seconds / 60:.1f}{NBSP}min"
    return f"{seconds / 3600:.1f}{NBSP}h"


def listed(names: Sequence[str]) -> str:
    """The names as a list in a sentence: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end; "" stays ""."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') or not text else '.'}"


def counted(n: int, one: str) -> str:
    """A number with its noun: "1 label" or "1,200 labels"."""
    return f"{n:,} {one}{'' if n == 1 else 's'}"


def shell_command(*words: object) -> str:
    """A command of handful as a shell takes it: `handful data 'my photos'`."""
    return shlex.join(["handful", *map(str, words)])


def compared_with_chosen(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The accuracy of each row minus that of the chosen one: "−2.5 points"; "" for that one.

    Args:
        rows: of `choice` in run.json; a dash stands where a row has no accuracy.
    """
    chosen = next((row["accuracy"] for row in rows if row["chosen"]), None)

    def compared(row: Mapping[str, Any]) -> str:
        if row["chosen"]:
            return ""
        if chosen is None or row["accuracy"] is None:
            return "–"
        return f"{points(row['accuracy'] - chosen)} points"

    return [compared(row) for row in rows]


def often(share: float) -> str:
    """A share in words that go before a plural: "nine in ten", or "95 of 100"."""
    return "nine in ten" if share == 0.9 else f"{100 * share:.0f} of 100"


def times_of(share: float) -> str:
    """How often something holds: "nine times in ten", or "95 times in 100"."""
    return "nine times in ten" if share == 0.9 else f"{100 * share:.0f} times in 100"


NOT_SHOWN = "not shown to be better than guessing"
GUESSES = f"the classifier is {NOT_SHOWN}, so any of its answers may be a guess"
FEW = 20  # labels that count below which an accuracy is no more than a bound


def nearly_always(accuracy: float, low: float) -> bool:
    """Whether an accuracy would be said to be 100 %, though it may well be less."""
    return accuracy > 0.995 and low < 0.99


NO_FIGURE = ("unknown", "few", "guessing")  # reasons of `withheld` for which little is known


def withheld(estimate: Mapping[str, Any]) -> Literal["unknown", "few", "guessing", "all", ""]:
    """Why the accuracy of an estimate is not said, on any screen or page; "" where it is.

    Args:
        estimate: accuracy and low in [0, 1], n where few labels count, and guessing.

    Returns:
        "unknown": there is none. "few": fewer than FEW labels count. "guessing": it is not shown to
        be better than guessing. "all": nearly all labels were predicted rightly.
    """
    if estimate["accuracy"] is None:
        return "unknown"
    if estimate.get("n", FEW) < FEW:
        return "few"
    if estimate.get("guessing"):
        return "guessing"
    return "all" if nearly_always(estimate["accuracy"], estimate["low"]) else ""


def may_guess(estimate: Mapping[str, Any] | None) -> bool:
    """Whether a classifier is not shown to be better than guessing, by an estimate that it has."""
    return estimate is not None and withheld(estimate) == "guessing"


WORTH = 0.05  # share of images answered below which sure answers are not offered


def promises(estimate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What `--abstain` promises of sure answers, the highest target accuracy last.

    This is the rule of all commands, screens and pages: nothing is promised where it is not known
    how often all answers are right.

    Args:
        estimate: as in run.json, with abstentions.
    """
    known = [] if withheld(estimate) in NO_FIGURE else estimate["abstentions"]
    return sorted(known, key=lambda row: row["sure"])


def promise_of(
    promised: Iterable[Mapping[str, Any]], target_accuracy: float
) -> Mapping[str, Any] | None:
    """The lowest of some promises that is enough for a target accuracy; None where none is."""
    enough = [row for row in promised if row["sure"] >= target_accuracy]
    return min(enough, key=lambda row: row["sure"], default=None)


def not_promised(
    promised: Iterable[Mapping[str, Any]], target_accuracy: float, without: str
) -> str:
    """Say that a target accuracy is not promised, and what may be asked for instead.

    Args:
        without: what to do where nothing is promised: "predict without --abstain".
    """
    most = max((row["sure"] for row in promised), default=None)
    instead = f"ask for {most} at most" if most else without
    return (
        f"the labels of this run cannot promise that {percent(target_accuracy, 0)} of the answers "
        f"are right; {instead}, or label more images"
    )


def why_no_promise(estimate: Mapping[str, Any]) -> str:
    """Why nothing is promised of sure answers; "" where something is."""
    if promises(estimate):
        return ""
    return {
        "unknown": "how often it is right is not known",
        "few": f"fewer than {FEW} labels of random images count",
        "guessing": f"it is {NOT_SHOWN}",
    }.get(withheld(estimate), "the labels are too few, or its surest answers too often wrong")


def promise_in_words(row: Mapping[str, Any]) -> str:
    """Say how many images get an answer where only sure answers count, and how many are right."""
    answered = f"about {percent(row['share'], 0)} of images like the labelled ones get an answer"
    if row.get("held") is None:
        return (
            f"{answered}, and about {percent(row['sure'], 0)} of the answers are right: this run "
            f"was made by an earlier version, which promised no more; fit again to be told at least"
        )
    return (
        f"{answered}; at least {percent(row['sure'], 0)} of the answers are right, for "
        f"{often(row['held'])} sets of labels picked as these were"
    )


def sure_answers(estimate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The promises that a screen offers by itself, the highest last.

    Each is above what is said of all answers, and for at least the share WORTH of the images.

    Args:
        estimate: as in run.json, with abstentions.
    """
    return [row for row in promises(estimate) if row["share"] >= WORTH and gains(row, estimate)]


def gains(row: Mapping[str, Any], estimate: Mapping[str, Any]) -> bool:
    """Whether sure answers are promised to be right more often than is said of all answers."""
    of_all = estimate["low" if withheld(estimate) == "all" else "accuracy"]
    return bool(row["sure"] > of_all)


def so_far(estimate: Mapping[str, Any], groups: int = 0) -> str:
    """Say how often an interim classifier is right; without a bound where only that is known.

    The bound of a better classifier may be lower, as fewer fits measured it: in a row of messages
    that reads as a loss.

    Args:
        groups: number of groups that the labelled images are of; 0 where each is one.
    """
    why = withheld(estimate)
    if why == "few":
        labels = counted(estimate["n"], "label")
        count = "counts" if estimate["n"] == 1 else "count"
        return f"no figure yet: {labels} {count} towards it, and it takes {FEW}"
    if why == "guessing" and 0 < groups < FEW:
        return f"no figure yet, as {counted(groups, 'group')} cannot tell"
    if why == "all":
        return "right for nearly all labels that it had not seen"
    return about_right(estimate)


def about_right(estimate: Mapping[str, Any], on: str = "", sure: str = "") -> str:
    """Say how often a classifier is right, as exactly as is known: "about 75 % right (59–87 %)".

    Args:
        estimate: accuracy, low and high in [0, 1], and n and guessing as in `withheld`.
        on: words after "right".
        sure: words after the interval.
    """
    accuracy, low, high = (estimate[key] for key in ("accuracy", "low", "high"))
    why = withheld(estimate)
    if why == "unknown":
        return "no figure yet"
    if why == "guessing":
        return NOT_SHOWN
    if why:
        return f"above about {100 * low:.0f} % right{on}"
    digits = 0 if high - low > 0.02 else 1
    at, least, most = (f"{100 * share:.{digits}f}" for share in (accuracy, low, high))
    return f"about {at} % right{on} ({least}–{most} %{sure})"
