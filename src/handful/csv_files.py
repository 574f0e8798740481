"""Writing and reading CSV: no cell runs in a spreadsheet, and every text comes back as it was.

A spreadsheet runs a cell that starts with one of `FORMULA`, and one that is set to semicolons ends
a cell at every semicolon and line end, in quotes or not. So each part of a cell between those that
would run gets an apostrophe before it. A file name that starts so gets ./ before it instead: it
stays the path of the same file.
"""

import csv
import io
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handful.errors import HandfulError
from handful.files import beside, read_text

FILE = "file"  # the column that holds names of files
FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
           "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
_END = re.compile(r"([;\t\r\n])")  # where some spreadsheet starts a new cell
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_limit = threading.RLock()


def write_csv(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    """UTF-8, but for names of files that are not: those keep their bytes."""
    at = header.index(FILE) if FILE in header else -1
    with beside(path) as temporary:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([defused(name) for name in header])
            for row in rows:
                writer.writerow(
                    [defused_name(c) if k == at else defused(c) for k, c in enumerate(row)]
                )


def read_csv(path: Path) -> list[dict[str, str]]:
    """What `write_csv` wrote, row by row; HandfulError if it is damaged."""
    text = read_text(path, errors="surrogateescape")
    try:
        with long_cells(len(text)):
            records = [cells for cells in csv.reader(io.StringIO(text, newline="")) if cells]
    except csv.Error as error:
        raise HandfulError(f"{path} is damaged ({error!r}); restore it or fit again") from None
    header = [restored(name) for name in records[0]] if records else []
    odd = [cells for cells in records if len(cells) != len(header)]
    if FILE not in header or odd:
        reason = f"a line has {len(odd[0])} cells" if odd else "it has no column 'file'"
        raise HandfulError(f"{path} is damaged ({reason}); restore it or fit again")
    return [
        {
            name: restored_name(cell) if name == FILE else restored(cell)
            for name, cell in zip(header, cells, strict=True)
        }
        for cells in records[1:]
    ]


def defused(text: str) -> str:
    """`text` with an apostrophe before each part of it that a spreadsheet would run."""
    first, *rest = _END.split(text)
    mark = "'" if _runs(first) or _starts_blank(text) else ""
    return mark + first + _rest_defused(rest)


def restored(text: str) -> str:
    """The text that `defused` made into this one. Any text it cannot have made is returned."""
    first, *rest = _END.split(text)
    if first.startswith("'") and (_runs(first) or _starts_blank(text)):
        first = first[1:]
    return first + _rest_restored(rest)


def defused_name(name: str) -> str:
    """A file name as `defused` text that is still a path of the file where that can be."""
    first, *rest = _END.split(name)
    path = name.startswith("./") or _runs(first) or _starts_blank(name)
    return f"./{first}{_rest_defused(rest)}" if path else defused(name)


def restored_name(cell: str) -> str:
    if cell.startswith("./"):
        first, *rest = _END.split(cell[2:])
        return first + _rest_restored(rest)
    return restored(cell)


def _rest_defused(parts: list[str]) -> str:
    return "".join("'" + part if _runs(part) else part for part in parts)


def _rest_restored(parts: list[str]) -> str:
    return "".join(p[1:] if p.startswith("'") and _runs(p) else p for p in parts)


def _runs(part: str) -> bool:
    """Whether a spreadsheet may take this for a formula; apostrophes before it do not count."""
    core = part.lstrip("'\" ")
    return core.startswith(FORMULA) and not _NUMBER.fullmatch(core)


def _starts_blank(text: str) -> bool:
    return text.lstrip("'").startswith(("\t", "\r", "\n"))


@contextmanager
def long_cells(length: int) -> Iterator[None]:
    """Let a cell be as long as the text it is in; the module's limit holds for all threads."""
    with _limit:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, length + 1))
        try:
            yield
        finally:
            csv.field_size_limit(before)
