"""Read tables: CSV in its dialects, JSON lists and JSON lines.

Delimiters are comma, semicolon, tab, or what a first line `sep=` names. Byte order marks, CRLF and
quotes are read as spreadsheets write them. Formats that are not text, such as Excel workbooks, are
refused by name.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handful.csv_files import long_cells
from handful.errors import HandfulError
from handful.text import similar_file

DELIMITERS = ",;\t"
LIMIT = 1 << 29  # bytes of a label file
AS_CSV = "open it and save it as 'CSV UTF-8', then give that file to --labels"
_MARKS = (  # the longer ones first: the mark of UTF-32 starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", AS_CSV),
    (b"PAR1", "a Parquet file", "write it as CSV, for example with pandas' to_csv"),
    (b"\x1f\x8b", "compressed (gzip)", "unpack it first"),
    (b"\x89PNG", "an image", "give a CSV of file,label"),
    (b"\xff\xd8\xff", "an image", "give a CSV of file,label"),
    (b"%PDF", "a PDF", "give a CSV of file,label"),
)


@dataclass(frozen=True)
class Table:
    """The cells of a table."""

    columns: list[str]
    records: list[tuple[int, list[str]]]  # (line where it starts, cells), without the header
    line: int = 1  # line of the header
    delimiter: str = ","
    headed: bool = True  # whether the file has a header


def read_text(path: Path, encoding: str) -> str:
    """The text of a label file; bytes that are not UTF-8 become surrogate escapes.

    HandfulError if the file cannot be read, is no text or is not in the encoding.
    """
    content = _content(path)
    _check_kind(path, content)
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    escapes = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    try:
        text = content.decode(encoding, escapes)
    except LookupError as error:
        raise HandfulError(
            f"no encoding {encoding!r}; try utf-8, latin-1, cp1252 or utf-16"
        ) from error
    except UnicodeError as error:
        line = content[: getattr(error, "start", 0)].count(b"\n") + 1
        raise not_encoded(path, line, encoding, content) from error
    if "\0" in text:
        raise HandfulError(
            f"{path} holds zero bytes, so it is not {encoding} text; {_wide(content, encoding)}"
        )
    return text


def not_encoded(path: Path, line: int, encoding: str, content: bytes) -> HandfulError:
    """The error for a line that is not valid in the encoding; it suggests another encoding."""
    others = [name for name in ("utf-8", "cp1252", "latin-1") if name != encoding.lower()]
    instead = next(name for name in others if _readable(content, name))
    return HandfulError(
        f"{path} line {line} is not {encoding}; save it as UTF-8 or name its encoding, for example "
        f"--encoding {instead}"
    )


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise HandfulError(
            f"cannot read the label file {path}: {error.strerror}{similar_file(path)}"
        ) from error
    if len(content) > LIMIT:
        raise HandfulError(
            f"the label file {path} is larger than {LIMIT >> 20} MB; leave out columns not needed"
        )
    return content


def _check_kind(path: Path, content: bytes) -> None:
    kinds = [(kind, way) for start, kind, way in _BINARY if content.startswith(start)]
    if content.startswith(b"PK\x03\x04"):
        if b"opendocument.spreadsheet" in content[:200] or path.suffix.lower() == ".ods":
            kinds = [("an OpenDocument spreadsheet (.ods)", AS_CSV)]
        elif b"xl/" in content or path.suffix.lower() in (".xlsx", ".xlsm"):
            kinds = [("an Excel workbook (.xlsx)", AS_CSV)]
        else:
            kinds = [("a ZIP archive", "unpack it first, and give the label file in it")]
    for kind, way in kinds[:1]:
        raise HandfulError(f"{path} is {kind}, not text; {way}")


def _readable(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeError:
        return False
    return True


def _wide(content: bytes, encoding: str) -> str:
    """Advice on zero bytes: the encoding in which they are text, if there is one."""
    name = "utf-16-be" if content[:1] == b"\0" else "utf-16"
    if _readable(content, name) and not encoding.lower().startswith("utf-16"):
        text = content.decode(name)
        if text[:1].isprintable() and text[:1].isascii() and "\0" not in text:
            return f"save it as UTF-8 or name its encoding, for example --encoding {name}"
    return "the file is damaged or not a table; save the table again as 'CSV UTF-8'"


def read_csv_table(path: Path, text: str, known: set[str]) -> Table:
    """The table in CSV text; the delimiter that yields most of the `known` columns is taken."""
    told = re.match(r"\ufeff?\"?sep=(.)\"?\r?\n", text, re.IGNORECASE)
    best: tuple[tuple[int, int], str, int, list[str]] | None = None
    wrong: list[HandfulError] = []
    for delimiter in told[1] if told else DELIMITERS:
        try:
            line, cells = _first(path, text, delimiter, skip=bool(told))
        except HandfulError as error:  # wrong quoting: another delimiter may be right
            wrong.append(error)
            continue
        names = [cell.strip().lower() for cell in cells]
        score = (sum(name in known for name in names), len(names))
        if best is None or score > best[0]:
            best = score, delimiter, line, cells
    if best is None:
        raise wrong[0]
    _, delimiter, line, header = best
    records = [(at, cells) for at, cells in _records(path, text, delimiter) if at > line]
    records = [(at, cells) for at, cells in records if any(cell.strip() for cell in cells)]
    return Table([name.strip() for name in header], records, line, delimiter)


def check_width(path: Path, table: Table) -> None:
    """HandfulError for a record with more cells than the header has columns."""
    width = len(table.columns)
    for line, cells in table.records:
        if any(cell.strip() for cell in cells[width:]):
            raise HandfulError(
                f"{path} line {line} has {len(cells)} cells where the header has {width}; "
                f"put names that hold {table.delimiter!r} in double quotes"
            )


def _first(path: Path, text: str, delimiter: str, skip: bool) -> tuple[int, list[str]]:
    """The first record that is not blank; `skip` skips line 1, which holds sep=."""
    for line, cells in _records(path, text, delimiter):
        if any(cell.strip() for cell in cells) and not (skip and line == 1):
            return line, cells
    return 0, []


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every record as (line where it starts, cells)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            with long_cells(len(text)):
                cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise HandfulError(f"{path} line {line} cannot be read as CSV: {error}") from error
        yield line, cells


def read_json_value(path: Path, text: str) -> Any:
    """The JSON value in a label file; for JSON lines the list of values."""
    try:
        return json.loads(text)
    except RecursionError:
        raise HandfulError(f"{path} is JSON that is nested too deeply to be a table") from None
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            return [json.loads(line) for line in lines] if len(lines) > 1 else _raise(error)
        except (ValueError, RecursionError):
            raise HandfulError(f"{path} cannot be read as JSON: {error}") from None


def _raise(error: Exception) -> Any:
    raise error


def json_table(records: list[dict[str, Any]]) -> Table:
    """A table of flat JSON objects; a record's line is its number."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    cells = [
        (number, [as_text(record.get(key)) for key in columns])
        for number, record in enumerate(records, 1)
    ]
    return Table([column.strip() for column in columns], cells)


def as_text(value: Any) -> str:
    """A JSON value as a cell. Lone surrogates that are no escaped bytes are replaced."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
