"""What is made from the lines in results/: tables in the documentation, and what the package needs.

Each is written, or said to be stale, by its name: "docs/results.md: table coverage".
"""

import re
from pathlib import Path

from benchmarks.lib import experience, measured
from benchmarks.lib.paths import DOCS, ROOT
from benchmarks.lib.tables import TABLES

PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
RESOURCES = {made.TARGET: made.text for made in (experience, measured)}
MARKED = re.compile(r"<!-- table (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def write_tables() -> list[str]:
    """Into every page, between the markers of each table; what changed."""
    changed = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = MARKED.sub(_filled, text)
        if made != text:
            changed.append(_short(page))
            page.write_text(made, encoding="utf-8")
    return changed


def write_resources() -> list[str]:
    """What the package is delivered with; what changed."""
    changed = stale_resources()
    for path, make in RESOURCES.items():
        path.write_text(make(), encoding="utf-8")
    return changed


def stale() -> list[str]:
    """Everything that is not what the results give."""
    return [*(name for page in PAGES for name in stale_tables(page)), *stale_resources()]


def stale_tables(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [
        f"{_short(page)}: table {found[1]}"
        for found in MARKED.finditer(text)
        if found[0] != _filled(found)
    ]


def stale_resources() -> list[str]:
    return [
        _short(path)
        for path, make in RESOURCES.items()
        if not path.exists() or path.read_text(encoding="utf-8") != make()
    ]


def _filled(found: re.Match[str]) -> str:
    name = found[1]
    if name not in TABLES:
        raise SystemExit(f"no table {name}; there are {', '.join(TABLES)}")
    return f"<!-- table {name} -->\n{TABLES[name]()}\n<!-- end -->"


def _short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
