"""Words for messages."""

import difflib
import re
from collections.abc import Iterable

from handful.errors import HandfulError

LONGEST = 36_000_000.0  # seconds


def did_you_mean(given: str, known: Iterable[str], most: int = 1) -> str:
    """A question such as ' Did you mean 'fixmatch'?', or nothing where no name is close.

    Args:
        most: how many names are offered where several are close.
    """
    close = difflib.get_close_matches(given, list(known), n=most)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def in_seconds(text: str) -> float:
    """A time as people type it: 90s, 10m, 1.5h; seconds where no unit is given."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip())
    if found is None or not float(found[1]):
        raise HandfulError(f"a time is typed as 90s, 10m or 1.5h, got {text!r}")
    seconds = float(found[1]) * {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}[found[2]]
    if seconds > LONGEST:
        raise HandfulError(f"a time is 10,000 hours at most, got {text[:40]!r}")
    return seconds
