"""Read a label file, a CSV or the file of another tool, and match its rows to images.

A CSV has the columns file and label, and may have group, origin, seen and mark, in any order. Other
columns are ignored. `columns` lists the names that are recognised. A blank label means unlabelled.
Labels are text: "01" differs from "1", and "NA" is a name; but where all are whole numbers, "3.0"
is "3". Spaces around a cell are ignored.
`match_files` finds the image that a row names. Rows that cannot be used are listed, and their
images have no label.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from handful.csv_files import restored
from handful.data.labels.columns import (
    CONFIRMED,
    KNOWN,
    Columns,
    find_columns,
    one_hot_labels,
)
from handful.data.labels.given import column_texts
from handful.data.labels.match_files import EXACT, FileMatcher, Match
from handful.data.labels.other_tools import Labelled, choices, known_format, read_cvat
from handful.data.labels.tables import (
    Table,
    check_width,
    json_table,
    not_encoded,
    read_csv_table,
    read_json_value,
    read_text,
)
from handful.data.skipped import ONLY_LABELED, Skipped
from handful.errors import HandfulError
from handful.progress import Important, Say, silent
from handful.text import counted, some_of

_OWN = {"pixels", "confidence", "guess"}  # columns that only CSVs written by handful have

GIVEN = Path("the labels given")  # stands in messages for the file of labels that are in memory


@dataclass(frozen=True)
class LabelFile:
    """A label file, with the encoding and the columns that the user named."""

    path: Path
    encoding: str = "utf-8"
    file_column: str | None = None
    label_column: str | None = None
    table: Table | None = None  # its content, if the labels are in memory: there is no file


@dataclass(frozen=True)
class Row:
    """One record of a label file."""

    line: int  # where the record starts; in JSON and XML the number of the record
    file: str
    label: str | None
    group: str | None = None
    origin: str | None = None  # how the image was picked for labelling: "random" or "chosen"
    unused: str = ""  # why the record gives no label
    confirmed: bool = False  # whether the label was looked at again, and stands


@dataclass
class Matched:
    """The rows of a label file by the image that they name, and the rows that cannot be used."""

    rows: dict[str, Row] = field(default_factory=dict)
    unused: list[Skipped] = field(default_factory=list)  # rows that name no image, or contradict


def match_labels(labels: LabelFile, names: Iterable[str], root: Path, say: Say = silent) -> Matched:
    """Match the rows of a label file to the images `names` in `root`.

    Args:
        say: receives sentences on rows that were matched loosely, and on labels that are not used:
            their files are missing, or they are ambiguous or contradict each other.

    Raises:
        HandfulError: the file cannot be read or understood, or names none of the images.
    """
    matcher = FileMatcher(names, root, labels.path.parent)
    rows = _read(labels, matcher, say)
    found = [(row, matcher.find(row.file)) for row in rows]
    whole = {match.names[0] for _, match in found if match and match.whole and _is_one(match)}
    matched, rules, ambiguous = Matched(), Counter[str](), list[tuple[Row, Match]]()
    examples: dict[str, str] = {}
    missing: list[Row] = []
    of_image: defaultdict[str, list[Row]] = defaultdict(list)
    for row, match in found:
        if match and not _is_one(match):
            ambiguous.append((row, match))
        elif match and (match.whole or match.names[0] not in whole):
            of_image[match.names[0]].append(row)
            rules[match.rule] += 1
            examples.setdefault(match.rule, f"{row.file!r} is {match.names[0]!r}")
        else:
            missing.append(row)
            reason = f"{ONLY_LABELED}: line {row.line} of {labels.path}"
            matched.unused.append(Skipped(row.file.strip(), reason))
    if not of_image:
        raise _none_found(labels.path, root, rows, ambiguous)
    matched.unused += [_unclear(labels.path, row, match) for row, match in ambiguous]
    matched.unused = list(dict.fromkeys(matched.unused))
    contradicting = _merge(labels.path, of_image, matched)
    if rules.keys() - {EXACT}:
        say(_by_rule(labels.path, len(rows), rules, examples))
    for told in _unused(labels.path, rows, missing, ambiguous, contradicting):
        say(Important(told))
    return matched


def _unused(
    path: Path,
    rows: list[Row],
    missing: list[Row],
    ambiguous: list[tuple[Row, Match]],
    contradicting: list[str],
) -> Iterator[str]:
    """Sentences on labels that are not used."""
    if lost := [repr(row.file.strip()) for row in missing if row.label]:
        every = counted(sum(row.label is not None for row in rows), "label")
        used = "is not used" if len(lost) == 1 else "are not used"
        yield (
            f"{len(lost):,} of {every} in {path} {used}, as there is no such image: "
            f"{some_of(lost, 3)}"
        )
    if ambiguous:
        yield f"{len(ambiguous)} rows of {path} may mean several images: {_some(ambiguous)}"
    if contradicting:
        many = "1 image has" if len(contradicting) == 1 else f"{len(contradicting)} images have"
        yield (
            f"{many} contradicting labels in {path} and no label is used: "
            f"{'; '.join(contradicting[:3])}"
        )


def _is_one(match: Match) -> bool:
    return len(match.names) == 1


def _read(labels: LabelFile, matcher: FileMatcher, say: Say) -> list[Row]:
    if labels.table is not None:
        if not labels.table.records:
            raise HandfulError("labels is empty; give a label for each image whose label you know")
        return _from_table(labels, labels.table, "", matcher, say)
    path = labels.path
    text = read_text(path, labels.encoding)
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("<"):
        rows = _foreign(labels, "CVAT", read_cvat(path, text), say)
    elif start.startswith(("{", "[")):
        rows = _from_json(labels, text, matcher, say)
    else:
        known = KNOWN | {name.lower() for name in (labels.file_column, labels.label_column) if name}
        rows = _from_table(labels, read_csv_table(path, text, known), text, matcher, say)
    if not rows:
        raise HandfulError(f"{path} names no file; write one line per image below the header")
    return rows


def _from_json(labels: LabelFile, text: str, matcher: FileMatcher, say: Say) -> list[Row]:
    value = read_json_value(labels.path, text)
    try:
        foreign = known_format(value)
    except HandfulError as error:
        raise HandfulError(f"{labels.path}: {error}") from None
    if foreign:
        return _foreign(labels, *foreign, say)
    if isinstance(value, dict) and all(isinstance(label, str) for label in value.values()):
        value = [{"file": file, "label": label} for file, label in value.items()]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise HandfulError(
            f"{labels.path} is JSON of no known form; give a list of objects with file and label, "
            f"or an export of Label Studio, MegaDetector or COCO"
        )
    return _from_table(labels, json_table(value), text, matcher, say)


def _foreign(labels: LabelFile, tool: str, found: list[Labelled], say: Say) -> list[Row]:
    """The rows of another tool's export, which has no columns."""
    typed = labels.file_column or labels.label_column
    if typed:
        raise HandfulError(
            f"{labels.path} is an export of {tool}, which has no columns; leave out "
            f"--file-column and --label-column"
        )
    no_text = next((one.file for one in found if not isinstance(one.file, str)), None)
    if no_text is not None:
        raise HandfulError(f"{labels.path} names an image {no_text!r}; a file name is text")
    rows = [
        _with_labels(Row(number, one.file, None, unused=one.unsure), one.labels)
        for number, one in enumerate(found, 1)
    ]
    say(f"taking {labels.path} for an export of {tool}, {_classes(rows)}")
    return rows


def _with_labels(row: Row, labels: tuple[str, ...]) -> Row:
    """The row with its label; with no label if there are several."""
    labels = tuple(label.strip() for label in labels if label.strip())
    if len(labels) > 1:
        return replace(row, unused=f"several labels ({', '.join(labels)})")
    return replace(row, label=labels[0] if labels else None)


def _from_table(
    labels: LabelFile, table: Table, text: str, matcher: FileMatcher, say: Say
) -> list[Row]:
    path = labels.path
    table, columns = find_columns(path, table, labels.file_column, labels.label_column, matcher)
    check_width(path, table)
    if columns.label is not None:
        table = _with_label_texts(table, columns.label)
    every = (_row(path, table, line, cells, columns) for line, cells in table.records)
    rows = [row for row in every if row is not None]
    if (wrong := _not_encoded(labels, table, rows, matcher)) is not None:
        content = text.encode("utf-8", "surrogateescape")  # a pipe cannot be read again
        raise not_encoded(path, wrong, labels.encoding, content)
    if not rows:
        raise HandfulError(f"{path} names no file; write one line per image below the header")
    if columns.guessed:
        say(_taking(path, table, columns, rows))
    return rows


def _with_label_texts(table: Table, at: int) -> Table:
    """The table with `column_texts` in place of its labels; a short record has none."""
    texts = column_texts([cells[at] if at < len(cells) else "" for _, cells in table.records])
    records = [
        (line, [*cells[:at], text, *cells[at + 1 :]] if at < len(cells) else cells)
        for (line, cells), text in zip(table.records, texts, strict=True)
    ]
    return replace(table, records=records)


def _row(path: Path, table: Table, line: int, cells: list[str], columns: Columns) -> Row | None:
    """The row of a record; None for one with neither file nor label, such as a remark alone.

    HandfulError for a label without a file.
    """

    def cell(at: int | None) -> str:
        return "" if at is None or at >= len(cells) else cells[at]

    file, group = cell(columns.file), restored(cell(columns.group).strip())
    origin = cell(columns.origin).strip().lower()
    known = origin if origin in ("random", "chosen") else None
    if known == "random" and cell(columns.seen).strip().lower() not in ("", "blind"):
        known = "chosen"  # a suggestion may have made the label, so an estimate must not count it
    confirmed = cell(columns.mark).strip().lower() == CONFIRMED
    row = Row(line, file, None, group or None, known, confirmed=confirmed)
    if columns.one_hot:
        row = _with_labels(row, tuple(one_hot_labels(table, cells, columns)))
    else:
        row = _with_labels(row, choices(restored(cell(columns.label).strip())))
    if file.strip():
        return row
    if row.label or row.unused:
        raise HandfulError(
            f"{path} line {line} names no file; fill its file cell or remove the line"
        )
    return None


def _taking(path: Path, table: Table, columns: Columns, rows: list[Row]) -> str:
    """A sentence that says which columns are taken for the files and the labels."""
    if not table.headed:
        which = "first" if columns.file == 0 else "second"
        return (
            f"{path} has no header: taking its {which} column for the files and the other for "
            f"the labels, {_classes(rows)}"
        )
    file = table.columns[columns.file]
    if columns.one_hot:
        return (
            f"taking column {file!r} for the files and {len(columns.one_hot)} columns of 0 and 1 "
            f"for the labels, {_classes(rows)}"
        )
    assert columns.label is not None
    label = table.columns[columns.label]
    return f"taking column {file!r} for the files and {label!r} for the labels, {_classes(rows)}"


def _classes(rows: list[Row]) -> str:
    count = len({row.label for row in rows} - {None})
    return f"{count} classes" if count != 1 else "1 class"


def _not_encoded(
    labels: LabelFile, table: Table, rows: list[Row], matcher: FileMatcher
) -> int | None:
    """The first line that is not valid in the encoding, or None.

    Names of files that are themselves no valid text are allowed. So are labels in CSVs that handful
    wrote; elsewhere such labels show that the file has another encoding.
    """
    encoding = labels.encoding.lower().replace("-", "")
    if labels.table is not None or encoding not in ("utf8", "utf8sig"):
        return None
    own = _OWN & {name.strip().lower() for name in table.columns}
    for row in rows:
        match = matcher.find(row.file) if _escaped(row.file) else None
        foreign_name = _escaped(row.file) and not (match and match.rule == EXACT)
        typed = _escaped(row.label or "") or _escaped(row.group or "") or _escaped(row.unused)
        if foreign_name or (typed and not own):
            return row.line
    return table.line if any(map(_escaped, table.columns)) and not own else None


def _escaped(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


def _merge(path: Path, of_image: dict[str, list[Row]], matched: Matched) -> list[str]:
    """Merge the rows that name one image, and list the rows that contradict each other.

    Returns:
        The contradictions, as sentences.
    """
    contradictions = []
    for name, rows in of_image.items():
        for row in rows:
            if row.unused:
                matched.unused.append(
                    Skipped(name, f"{row.unused}: line {row.line} of {path}; left unlabelled")
                )
        given = [row for row in rows if row.label]
        labels = dict.fromkeys(row.label for row in given)
        if len(labels) > 1:
            matched.unused += [
                Skipped(
                    name,
                    f"contradicting labels: {row.label!r} on line {row.line} of {path}; left "
                    f"unlabelled",
                )
                for row in given
            ]
            said = " and ".join(f"{row.label!r} on line {row.line}" for row in given[:3])
            contradictions.append(f"{name!r} is {said}")
        usable = len(labels) == 1 and not any(row.unused for row in rows)
        matched.rows[name] = Row(
            rows[0].line,
            rows[0].file,
            given[0].label if usable else None,
            _group(path, rows),
            next((row.origin for row in rows if row.origin), None),
            confirmed=usable and any(row.confirmed for row in given),
        )
    return contradictions


def _group(path: Path, rows: list[Row]) -> str | None:
    """The group of an image; HandfulError for two groups, as a wrong one would split a group."""
    given = [row for row in rows if row.group]
    for row in given:
        if row.group != given[0].group:
            raise HandfulError(
                f"{path} gives {given[0].file!r} the group {given[0].group!r} on line "
                f"{given[0].line} and {row.group!r} on line {row.line}; keep one of them"
            )
    return given[0].group if given else None


def _unclear(path: Path, row: Row, match: Match) -> Skipped:
    return Skipped(
        row.file.strip(),
        f"several images may be meant: {', '.join(match.names[:3])} ({match.rule}): line "
        f"{row.line} of {path}",
    )


def _some(ambiguous: list[tuple[Row, Match]]) -> str:
    return "; ".join(
        f"{row.file!r} is {' or '.join(map(repr, match.names[:3]))}" for row, match in ambiguous[:3]
    )


def _by_rule(path: Path, count: int, rules: Counter[str], examples: dict[str, str]) -> str:
    parts = [
        f"{number} {rule}" + ("" if rule == EXACT else f" ({examples[rule]})")
        for rule, number in rules.most_common()
    ]
    return f"{rules.total()} of {count} rows of {path} name an image: {', '.join(parts)}"


def _none_found(
    path: Path, root: Path, rows: list[Row], ambiguous: list[tuple[Row, Match]]
) -> HandfulError:
    if ambiguous:
        return HandfulError(
            f"each of the files named in {path} that is in {root} may be one of several images "
            f"({_some(ambiguous)}); give paths relative to the folder"
        )
    return HandfulError(
        f"none of the {len(rows)} files named in {path} is an image in {root} (the first is "
        f"{rows[0].file!r}); paths must be relative to the folder or to the label file"
    )
