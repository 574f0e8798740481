"""Read and write the label file of a session; it is made of the journal and replaced whole.

Columns: file, label (empty: none), origin and seen as in `Mark`, mark ("unsure" or "none" where an
annotator said so, "confirmed" for a label that was looked at again and stands), and, where there
are any, group and annotator. `fit` reads it with `--labels`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from handful.csv_files import read_csv, write_csv
from handful.data.class_names import normalized
from handful.data.labels.columns import CONFIRMED
from handful.data.labels.label_file import LabelFile, match_labels
from handful.errors import HandfulError
from handful.labeling.marks import LABEL, NONE, ORIGINS, SEEN, UNSURE, Mark

OWN = {"file", "label", "origin", "seen", "mark", "group", "annotator"}


def write_labels(path: Path, marks: Mapping[str, Mark], groups: Mapping[str, str]) -> None:
    """Replace the label file by one of these marks, sorted by name."""
    has_group = any(name in groups for name in marks)
    annotated = any(mark.by for mark in marks.values())
    header = ["file", "label", "origin", "seen", "mark"]
    header += ["group"] * has_group + ["annotator"] * annotated
    rows = []
    for name in sorted(marks):
        mark = marks[name]
        origin = "" if mark.origin == "unknown" else mark.origin
        of_label = CONFIRMED if mark.confirmed else ""
        said = of_label if mark.kind == LABEL else mark.kind
        row = [name, mark.label or "", origin, mark.seen, said]
        rows.append(row + [groups.get(name, "")] * has_group + [mark.by] * annotated)
    write_csv(path, header, rows)


def digest(path: Path) -> str | None:
    """SHA-256 of a file's content; None if there is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def is_own(path: Path) -> bool:
    """Whether the session may replace the file: all its columns are ones that it writes."""
    try:
        rows = read_csv(path)
    except (HandfulError, UnicodeError):
        return False
    if not rows:
        return path.stat().st_size < 200
    return {"file", "label"} <= rows[0].keys() <= OWN


def read_labels(
    path: Path, names: Sequence[str], root: Path, say: Callable[[str], None]
) -> tuple[dict[str, Mark], dict[str, str]]:
    """The marks and the groups of a label file: a session's own, or any that `fit` reads."""
    if is_own(path):
        rows = read_csv(path)
        known = set(names)
        if not rows or any(row["file"] in known for row in rows):
            return _own_marks(rows), {r["file"]: r["group"] for r in rows if r.get("group")}
    matched = match_labels(LabelFile(path), names, root, say)
    marks = {
        name: Mark(LABEL, label, row.origin or "unknown", "", "", row.confirmed)
        for name, row in matched.rows.items()
        if (label := normalized(row.label or ""))
    }
    return marks, {name: row.group for name, row in matched.rows.items() if row.group}


def _own_marks(rows: Sequence[Mapping[str, str]]) -> dict[str, Mark]:
    marks = {}
    for row in rows:
        label = normalized(row["label"]) or None
        kind = row.get("mark", "")
        if label is None and kind not in (UNSURE, NONE):
            continue
        origin, seen = row.get("origin", ""), row.get("seen", "")
        marks[row["file"]] = Mark(
            LABEL if label is not None else kind,
            label,
            origin if origin in ORIGINS else "unknown",
            seen if seen in SEEN else "suggested",
            row.get("annotator", ""),
            label is not None and kind == CONFIRMED,
        )
    return marks


def for_annotator(path: Path, name: str) -> Path:
    """The label file of one annotator: labels.csv → labels-NAME.csv."""
    plain = "".join(c for c in name if c.isalnum() or c in "-_ ").strip()
    if not plain or plain != name or len(name) > 40 or os.sep in name:
        raise HandfulError(
            f"--annotator {name!r} becomes a part of a file name; give up to 40 letters, digits, "
            f"spaces, - or _"
        )
    return path.with_name(f"{path.stem}-{name}{path.suffix or '.csv'}")
