"""Words for messages."""

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str], most: int = 1) -> str:
    """A question such as ' Did you mean 'fixmatch'?', or nothing where no name is close.

    Args:
        most: how many names are offered where several are close.
    """
    close = difflib.get_close_matches(given, list(known), n=most)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
