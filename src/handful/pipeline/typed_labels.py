"""Tables of ours that a user typed labels into: they are never deleted, but kept under a new name.

`label-next.csv` (your labels, 2026-11-29) says what it is and when it was typed.
"""

import codecs
import csv
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

from handful.files import replace

LISTS = ("label-next.csv", "label-first.csv")  # written with a blank column label


def has_typed_labels(path: Path, made: float | None = None) -> bool:
    """Whether a user changed the labels in a table of ours. What cannot be read counts as changed.

    The blanks of `label-next.csv` are filled in; a label of a table of predictions is not the
    likeliest class. Labels of other tables tell nothing by themselves.

    Args:
        made: when the run was whole, in seconds since 1970: any table newer than that was changed.
    """
    if not path.is_file():
        return False
    if made is not None and path.name not in LISTS and path.stat().st_mtime > made:
        return True
    rows = _rows(path)
    if rows is None or "label" not in rows[0]:
        return True
    columns, body = rows[0], rows[1:]
    at = columns.index("label")
    labels = [row[at].strip() if at < len(row) else "" for row in body]
    if path.name in LISTS:
        return any(labels)
    if columns[:3] == ["file", "label", "confidence"]:
        likeliest = (_likeliest(columns, row) for row in body)
        return any(x and _bare(x) not in best for x, best in zip(labels, likeliest, strict=True))
    return False


def set_aside(path: Path, say: Callable[[str], None], made: float | None = None) -> None:
    """Rename a table with typed labels to what it is; leave any other where it is."""
    if not has_typed_labels(path, made):
        return
    day = date.fromtimestamp(path.stat().st_mtime).isoformat()
    number, kept = 1, path.with_name(f"{path.stem} (your labels, {day}){path.suffix}")
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.stem} (your labels, {day}, {number}){path.suffix}")
    replace(path, kept)
    say(f"the labels that you typed into {path.name} are kept in {kept}")


def _rows(path: Path) -> list[list[str]] | None:
    """A table as text, as a spreadsheet may have saved it; None if it is none."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig", "strict" if wide else "replace")
        lines = text.splitlines()
        if lines and lines[0].startswith("sep="):
            del lines[0]
        mark = max(",;\t", key=lines[0].count)
        return [row for row in csv.reader(lines, delimiter=mark) if row]
    except (UnicodeDecodeError, csv.Error, IndexError):
        return None


def _likeliest(columns: list[str], row: list[str]) -> set[str]:
    """The classes of the highest probability in a row of predictions: several, if rounded so."""
    shares: dict[str, float] = {}
    for name, cell in zip(columns, row, strict=False):
        if name.startswith("p(") and name.endswith(")"):
            try:
                shares[_bare(name[2:-1])] = float(cell.replace(",", "."))
            except ValueError:
                return set()
    most = max(shares.values(), default=0.0)
    return {name for name, share in shares.items() if share >= most}


def _bare(label: str) -> str:
    """Without what keeps a spreadsheet from running it."""
    return label.strip().removeprefix("./").removeprefix("'")
