"""Find the columns of a table that hold the files and the labels.

Columns called `file` and `label` are taken. Otherwise the user names the columns, or they are
recognised by names that well-known tools use. An ambiguous table is refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from handful.data.labels.match_files import FileMatcher
from handful.data.labels.tables import Table
from handful.errors import HandfulError
from handful.text import did_you_mean

ORIGIN = "origin"  # only its values "random" and "chosen" have a meaning
SEEN = "seen"  # what the annotator saw: "blind" is no suggestion, any other value is one
MARK = "mark"  # only its value CONFIRMED has a meaning
CONFIRMED = "confirmed"  # the label was looked at again, and stands
FILES = (
    "file filename file_name fname name path filepath file_path image image_id image_name "
    "image_path image_file img img_id img_name img_path id id_code imageid imagename photo picture "
    "url image_url uri file_upload"
).split()
LABELS = (
    "label labels class classes category target diagnosis breed species class_name label_name "
    "category_name finding_labels choice tag y class_id label_id category_id"
).split()
KNOWN = {*FILES, *LABELS, "group", ORIGIN, SEEN}
_SAMPLE = 200  # records whose cells are compared with the images
_NONE_OR_ONE = {"": 0, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Columns:
    """Positions of the columns. Labels are in `label`, or one-hot in one column per class."""

    file: int
    label: int | None
    one_hot: tuple[int, ...] = ()
    group: int | None = None
    origin: int | None = None
    seen: int | None = None
    mark: int | None = None
    guessed: bool = False  # whether the user did not name the columns


def find_columns(
    path: Path, table: Table, file: str | None, label: str | None, matcher: FileMatcher
) -> tuple[Table, Columns]:
    """Find the columns of a table, and return the table too: its first line may be a record.

    Args:
        file, label: names of columns as typed; None to recognise them.

    HandfulError for columns that are missing or ambiguous.
    """
    names = [key_of(name) for name in table.columns]
    for own, chosen in (("file", file), ("label", label), ("group", None)):
        if chosen is None and names.count(own) > 1:
            raise HandfulError(f"{path} has {names.count(own)} columns {own!r}")
    others = ("group", ORIGIN, SEEN, MARK)
    group, origin, seen, mark = (names.index(n) if n in names else None for n in others)
    plain = file is None and label is None and {"file", "label"} <= set(names)
    if plain:
        return table, Columns(
            names.index("file"), names.index("label"), (), group, origin, seen, mark
        )
    typed = {}
    for flag, name in (("--file-column", file), ("--label-column", label)):
        if name is not None:
            typed[flag] = _typed(path, table, flag, name)
    if not typed and (headless := _without_header(table, matcher)):
        return headless
    at, to = typed.get("--file-column"), typed.get("--label-column")
    if at is None:
        at = _file_column(path, table, names, matcher, to is None and not set(names) & set(LABELS))
    one_hot: tuple[int, ...] = ()
    if to is None:
        to, one_hot = _label_column(path, table, names, at)
    elif to == at:
        raise HandfulError(f"{path}: the files and the labels cannot both be in column {label!r}")
    guessed = len(typed) < 2
    mark = None if mark in (at, to) else mark
    return table, Columns(at, to, one_hot, group, origin, seen, mark, guessed)


_HOLDS = {"--file-column": "file names", "--label-column": "labels"}


def key_of(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _typed(path: Path, table: Table, flag: str, name: str) -> int:
    """The column of that name, exactly or ignoring letter case and spaces."""
    for same in (str, key_of):
        found = [at for at, column in enumerate(table.columns) if same(column) == same(name)]
        if len(found) > 1:
            raise HandfulError(f"{path} has {len(found)} columns {name!r}; rename one of them")
        if found:
            return found[0]
    raise HandfulError(
        f"{flag} {name}: {path} has no such column.{did_you_mean(name, table.columns)} "
        f"It has {_listed(table.columns)}"
    )


def _listed(columns: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in columns[:12])
    return f"the columns {shown}" + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def _without_header(table: Table, matcher: FileMatcher) -> tuple[Table, Columns] | None:
    """The table and columns of a file without a header: two columns, and line 1 names an image."""
    if len(table.columns) != 2 or {key_of(name) for name in table.columns} & KNOWN:
        return None
    named = [matcher.find(cell) is not None for cell in table.columns]
    if sum(named) != 1:
        return None
    at = named.index(True)
    first = (table.line, table.columns)
    bare = Table(["first", "second"], [first, *table.records], 0, table.delimiter, headed=False)
    return bare, Columns(at, 1 - at, guessed=True)


def _named(table: Table) -> list[int]:
    """Positions of the columns with a name, without the index that pandas writes at the start."""
    first = table.columns[0].strip().lower() if table.columns else ""
    skip = 1 if not first or re.fullmatch(r"unnamed: \d+", first) else 0
    return [at for at in range(skip, len(table.columns)) if table.columns[at].strip()]


def _cells(table: Table, at: int) -> list[str]:
    return [cells[at] if at < len(cells) else "" for _, cells in table.records]


def _file_column(
    path: Path, table: Table, names: list[str], matcher: FileMatcher, label_missing: bool
) -> int:
    """The column of a well-known name whose cells name images; several of them must agree.

    Args:
        label_missing: no column is known to hold labels, which an error tells, too.
    """
    usable = _named(table)
    known = [at for at in usable if names[at] in FILES]
    if not known and len(usable) == 2:
        known = usable[:1]
        if not _found(table, known[0], matcher):
            known = []
    if not known:
        also = ["--label-column"] if label_missing else []
        raise _no_column(path, table, "--file-column", *also)
    if len(known) == 1:
        return known[0]
    found = {at: _found(table, at, matcher) for at in known}
    matching = [at for at in known if found[at]]
    if not matching:
        return min(known, key=lambda at: FILES.index(names[at]))
    best = max(matching, key=lambda at: len(found[at]))
    rows = range(min(len(table.records), _SAMPLE))
    for at in matching:
        if any(found[at].get(r, found[best].get(r)) != found[best].get(r) for r in rows):
            raise _two(path, table, "files", "--file-column", [at, best])
    return best


def _found(table: Table, at: int, matcher: FileMatcher) -> dict[int, str]:
    """Number of the record → image that the column's cell names, for the first records."""
    found = {}
    for row, cell in enumerate(_cells(table, at)[:_SAMPLE]):
        match = matcher.find(cell) if cell.strip() else None
        if match and len(match.names) == 1:
            found[row] = match.names[0]
    return found


def _label_column(
    path: Path, table: Table, names: list[str], file: int
) -> tuple[int | None, tuple[int, ...]]:
    others = [at for at in _named(table) if at != file]
    known = [at for at in others if names[at] in LABELS]
    if len(known) > 1:
        raise _two(path, table, "labels", "--label-column", known)
    if known:
        return known[0], ()
    rest = [at for at in others if names[at] not in ("group", ORIGIN, SEEN)]
    rest = [at for at in rest if any(cell.strip() for cell in _cells(table, at))]
    if len(rest) > 1 and all(_is_one_hot(_cells(table, at)) for at in rest):
        return None, tuple(rest)
    if len(rest) == 1 and len(_named(table)) == 2:
        return rest[0], ()
    raise _no_column(path, table, "--label-column")


def _is_one_hot(cells: list[str]) -> bool:
    return all(cell.strip().lower() in _NONE_OR_ONE for cell in cells)


def one_hot_labels(table: Table, cells: list[str], columns: Columns) -> list[str]:
    """The classes whose one-hot column holds 1."""
    given = [at for at in columns.one_hot if at < len(cells)]
    return [table.columns[at] for at in given if _NONE_OR_ONE.get(cells[at].strip().lower())]


def _two(path: Path, table: Table, what: str, flag: str, found: list[int]) -> HandfulError:
    names = [table.columns[at] for at in sorted(found)]
    choice = " or ".join(f"{flag} {name!r}" if " " in name else f"{flag} {name}" for name in names)
    return HandfulError(
        f"{path} may hold the {what} in more than one column; give {choice} {_in_python(flag)}"
    )


def _in_python(*flags: str) -> str:
    """How Python takes these options; only `load` has them."""
    options = ", ".join(f"{flag.removeprefix('--').replace('-', '_')}=..." for flag in flags)
    return f"(in Python handful.load(..., {options}))"


def _no_column(path: Path, table: Table, *flags: str) -> HandfulError:
    if not any(table.columns):
        return HandfulError(
            f"{path} needs a first line with the columns file and label (and group, if wanted); "
            f"it starts with ''"
        )
    return HandfulError(
        f"{path} has {_listed(table.columns)}, and its first line does not tell which holds the "
        f"{' and which the '.join(_HOLDS[flag] for flag in flags)}; give "
        f"{' '.join(f'{flag} NAME' for flag in flags)} {_in_python(*flags)}, or name the columns "
        f"file and label"
    )
