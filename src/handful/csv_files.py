"""Write and read CSV files that are safe in spreadsheets and restore every text exactly.

A spreadsheet evaluates a cell that starts with one of `FORMULA` as a formula. Some spreadsheets
start a new cell at every semicolon and line end, even inside quotes. So an apostrophe is put before
every such part of a cell that could be a formula. A file name gets ./ at its start instead, which
keeps it a path of the file.
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

FILE = "file"  # the column of file names
FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
           "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
_END = re.compile(r"([;\t\r\n])")  # characters at which some spreadsheets start a new cell
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_limit = threading.RLock()


def write_csv(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    """Write a CSV in UTF-8; file names that are no valid Unicode keep their bytes."""
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
    """Read the rows that `write_csv` wrote; HandfulError if the file is damaged."""
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
    """The text with an apostrophe before each part that a spreadsheet could evaluate."""
    first, *rest = _END.split(text)
    prefix = "'" if _runs(first) or _starts_blank(text) else ""
    return prefix + first + _rest_defused(rest)


def restored(text: str) -> str:
    """Undo `defused`. Text that `defused` cannot return is returned unchanged."""
    first, *rest = _END.split(text)
    if first.startswith("'") and (_runs(first) or _starts_blank(text)):
        first = first[1:]
    return first + _rest_restored(rest)


def defused_name(name: str) -> str:
    """A file name as a safe cell, with ./ at its start where that suffices."""
    first, *rest = _END.split(name)
    path = name.startswith("./") or _runs(first) or _starts_blank(name)
    return f"./{first}{_rest_defused(rest)}" if path else defused(name)


def restored_name(cell: str) -> str:
    """Undo `defused_name`."""
    if cell.startswith("./"):
        first, *rest = _END.split(cell[2:])
        return first + _rest_restored(rest)
    return restored(cell)


def _rest_defused(parts: list[str]) -> str:
    return "".join("'" + part if _runs(part) else part for part in parts)


def _rest_restored(parts: list[str]) -> str:
    return "".join(p[1:] if p.startswith("'") and _runs(p) else p for p in parts)


def _runs(part: str) -> bool:
    """Whether a spreadsheet may evaluate this part, apart from apostrophes before it."""
    core = part.lstrip("'\" ")
    return core.startswith(FORMULA) and not _NUMBER.fullmatch(core)


def _starts_blank(text: str) -> bool:
    return text.lstrip("'").startswith(("\t", "\r", "\n"))


@contextmanager
def long_cells(length: int) -> Iterator[None]:
    """Allow cells of `length` characters within the block.

    Python's limit is global, so other threads wait.
    """
    with _limit:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, length + 1))
        try:
            yield
        finally:
            csv.field_size_limit(before)
