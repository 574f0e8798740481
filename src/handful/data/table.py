"""The label file: a CSV of `file,label[,group][,origin]`, read so that nothing is guessed.

Comma, semicolon or tab; BOM, CRLF and quotes as spreadsheets write them; columns in any order and
others ignored. A blank label means unlabelled. Labels are text: "01" is not "1", "NA" is a name.
Spaces around a cell do not count.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from handful.errors import HandfulError

DELIMITERS = ",;\t"
COLUMNS = ("file", "label", "group")
ORIGIN = "origin"  # read where it says random or chosen; any other use of the name is left alone


@dataclass(frozen=True)
class Row:
    """One file of the table. `line` is where it was first named."""

    line: int
    file: str
    label: str | None
    group: str | None
    origin: str | None = None  # how the image came to be labelled: random or chosen


def read_table(path: Path, encoding: str = "utf-8") -> list[Row]:
    """The rows of a label file, one per file name. Raises HandfulError for what cannot be meant."""
    text = _text(path, encoding)
    header_line, delimiter, columns, width = _header(path, text)
    rows: dict[str, Row] = {}
    for line, cells in _records(path, text, delimiter):
        if line <= header_line or not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[width:]):
            raise HandfulError(
                f"{path} line {line} has {len(cells)} cells where the header has {width}; "
                f"put names that hold {delimiter!r} in double quotes"
            )
        row = _row(path, line, cells, columns)
        rows[row.file] = merged(path, rows[row.file], row) if row.file in rows else row
    if not rows:
        raise HandfulError(f"{path} names no file; write one line per image below the header")
    return list(rows.values())


def _text(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HandfulError(f"cannot read the label file {path}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig" if encoding.lower() == "utf-8" else encoding)
    except LookupError as error:
        raise HandfulError(
            f"no encoding {encoding!r}; try utf-8, latin-1, cp1252 or utf-16"
        ) from error
    except UnicodeError as error:
        line = content[: getattr(error, "start", 0)].count(b"\n") + 1
        raise HandfulError(
            f"{path} line {line} is not {encoding}; save it as UTF-8 or name its encoding, "
            f"for example --encoding cp1252"
        ) from error
    if "\0" in text:
        raise HandfulError(
            f"{path} holds zero bytes, so it is not {encoding} text; save it as UTF-8 or name its "
            f"encoding, for example --encoding utf-16"
        )
    return text


def _header(path: Path, text: str) -> tuple[int, str, dict[str, int], int]:
    """Line number, delimiter, where each known column is, and how many columns there are."""
    first = ""
    for delimiter in DELIMITERS:
        for line, cells in _records(path, text, delimiter):
            names = [cell.strip().lower() for cell in cells]
            if not any(names):
                continue
            first = delimiter.join(cells)
            if "file" in names and "label" in names:
                if twice := [name for name in COLUMNS if names.count(name) > 1]:
                    raise HandfulError(f"{path} has {names.count(twice[0])} columns {twice[0]!r}")
                columns = {name: names.index(name) for name in (*COLUMNS, ORIGIN) if name in names}
                return line, delimiter, columns, len(names)
            break
    raise HandfulError(
        f"{path} needs a first line with the columns file and label (and group, if wanted); "
        f"it starts with {first[:60]!r}"
    )


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line where it starts, cells) of every record."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise HandfulError(f"{path} line {line} cannot be read as CSV: {error}") from error


def _row(path: Path, line: int, cells: list[str], columns: dict[str, int]) -> Row:
    def cell(name: str) -> str:
        at = columns.get(name, len(cells))
        return cells[at].strip() if at < len(cells) else ""

    if not cell("file"):
        raise HandfulError(
            f"{path} line {line} names no file; fill its file cell or remove the line"
        )
    origin = cell(ORIGIN).lower()
    known = origin if origin in ("random", "chosen") else None
    return Row(line, cell("file"), cell("label") or None, cell("group") or None, known)


def merged(path: Path, first: Row, again: Row) -> Row:
    """One row of two that name the same file; they may add to but not contradict each other."""
    for what in ("label", "group"):
        one, two = getattr(first, what), getattr(again, what)
        if one and two and one != two:
            raise HandfulError(
                f"{path} gives {first.file!r} the {what} {one!r} on line {first.line} and {two!r} "
                f"on line {again.line}; keep one of them"
            )
    label, group = first.label or again.label, first.group or again.group
    return Row(first.line, first.file, label, group, first.origin or again.origin)
