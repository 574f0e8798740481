"""Keep tables of handful that a user typed labels into: they are renamed, never deleted.

The new name tells content and date: `label-next (your labels, 2026-11-29).csv`.
"""

import codecs
import csv
import os
from datetime import date
from pathlib import Path

from handful.files import replace
from handful.progress import Important, Say

LISTS = ("label-next.csv", "label-first.csv")  # written with an empty column `label`


def has_typed_labels(path: Path, finished_at: float | None = None) -> bool:
    """Return whether a user changed the labels in a table; an unreadable table counts as changed.

    A list to label (LISTS) is changed if a label is filled in, a table of predictions if a label
    is not the likeliest class. Other tables cannot be told by their labels.

    Args:
        finished_at: when the run was finished, in seconds since 1970. Other tables written later
            count as changed.
    """
    if not path.is_file():
        return False
    if finished_at is not None and path.name not in LISTS and path.stat().st_mtime > finished_at:
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
        likeliest = (_likeliest_classes(columns, row) for row in body)
        return any(
            x and _unescaped(x) not in best for x, best in zip(labels, likeliest, strict=True)
        )
    return False


def keep_typed_labels(path: Path, say: Say, finished_at: float | None = None) -> None:
    """Rename a table that holds typed labels, and say so; leave any other table where it is."""
    if not has_typed_labels(path, finished_at):
        return
    day = date.fromtimestamp(path.stat().st_mtime).isoformat()
    kept = put_aside(path, f"your labels, {day}")
    say(Important(f"the labels that you typed into {path.name} are kept in {kept}"))


def put_aside(path: Path, why: str) -> Path:
    """Rename a file to `NAME (why).csv`, or with a number where that is there, and return it."""
    number, kept = 1, path.with_name(f"{path.stem} ({why}){path.suffix}")
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.stem} ({why}, {number}){path.suffix}")
    replace(path, kept)
    return kept


def _rows(path: Path) -> list[list[str]] | None:
    """Return the rows of a table as a spreadsheet may have saved it; None if there is none."""
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


def _likeliest_classes(columns: list[str], row: list[str]) -> set[str]:
    """Return the classes of highest probability in a row; rounding may make several equal."""
    shares: dict[str, float] = {}
    for name, cell in zip(columns, row, strict=False):
        if name.startswith("p(") and name.endswith(")"):
            try:
                shares[_unescaped(name[2:-1])] = float(cell.replace(",", "."))
            except ValueError:
                return set()
    most = max(shares.values(), default=0.0)
    return {name for name, share in shares.items() if share >= most}


def _unescaped(label: str) -> str:
    """Return the text without the prefix that keeps spreadsheets from running a formula."""
    return label.strip().removeprefix("./").removeprefix("'")
