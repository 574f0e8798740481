"""Text for the screen: file and class names may hold characters that a terminal obeys."""

import json
import re
from typing import Any

# C0 and C1 controls, what reorders text, breaks lines or is not seen, and halves of surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]"
)


def for_terminal(text: str) -> str:
    """The text in one line, with control characters and invisible ones as \\x1b or \\u202e."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(number)
    return short or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def as_json_line(value: Any) -> str:
    """One line of JSON in which no terminal finds anything to obey."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
