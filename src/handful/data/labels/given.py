"""Labels given as Python objects: a dict, a table or a column of pandas, a list.

A missing label is None, NaN, NaT, pandas' NA, blank text, or the number -1. Numbers become text: 3
and 3.0 are the class "3", also where a file holds them as text.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from handful.csv_files import defused
from handful.data.labels.columns import FILES, LABELS, key_of
from handful.data.labels.tables import Table
from handful.errors import HandfulError

# A whole number, as pandas and spreadsheets write one in a column of floats. Three zeros could be
# thousands, and a number that starts with a zero is a code.
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:[.,]0{1,2})?")


def is_missing(label: Any) -> bool:
    """Whether a label means "no label": -1, blank text, None, NaN, NaT, pandas' NA."""
    if label is None or isinstance(label, str):
        return label is None or not label.strip()
    try:
        return bool(label != label or label == -1)
    except TypeError:  # pandas' NA has no truth value
        return type(label).__name__ == "NAType"
    except ValueError:  # an array has no single truth value
        return False


def class_text(label: Any) -> str:
    """The name of a class: text as it is, 3 and 3.0 as "3"; "" for a missing label."""
    if is_missing(label):
        return ""
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, bool | np.bool_):
        return "true" if label else "false"
    if isinstance(label, Integral):
        return str(int(label))
    if isinstance(label, Real):
        number = float(label)
        return str(int(number)) if number.is_integer() else str(number)
    raise HandfulError(
        f"a label is text or a number, got {label!r}, {_article(type(label).__name__)}"
    )


def refuse_mixed(labels: Iterable[Any], what: str = "y") -> None:
    """Raise HandfulError for text beside numbers: "1" and 1 may be one class or two."""
    examples = {_kind(label): label for label in reversed(list(labels))}
    if len(examples) > 1:
        named = " and ".join(f"{kind} ({label!r})" for kind, label in sorted(examples.items()))
        raise HandfulError(f"{what} mixes {named}; give all labels as one type, such as text")


def class_texts(labels: Iterable[Any]) -> list[str]:
    """The names of classes, "" for missing labels; HandfulError for text beside numbers."""
    values = list(labels)
    refuse_mixed((value for value in values if not is_missing(value)), "labels")
    return [class_text(value) for value in values]


def column_texts(cells: Sequence[str]) -> list[str]:
    """The names of classes in a text column of a table: "3.0" becomes "3" where all are whole.

    pandas makes floats of a column of whole numbers with blanks, and writes 3.0 into the file. A
    column with any other text, such as "1.5" or "03", is returned unchanged.
    """
    texts = [cell.strip() for cell in cells]
    if not all(_WHOLE.fullmatch(text) for text in texts if text):
        return list(cells)
    return [_WHOLE.sub(r"\1", text) for text in texts]


def by_position(labels: Any, n: int) -> list[str] | None:
    """The class names of labels that are in the order of n images; None for labels by file.

    HandfulError if there are more or fewer than n.
    """
    if isinstance(labels, Mapping) or hasattr(labels, "columns"):
        return None
    if _is_column(labels) and _are_names(labels.index):
        return None
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(values) != n:
        raise HandfulError(f"there are {n} images and {len(values)} labels; give a label for each")
    return class_texts(values)


def label_table(labels: Any) -> Table:
    """Labels by file as a table with the columns file and label, or with those of a data frame.

    Args:
        labels: a mapping from files to labels; a data frame; or a column (Series) of labels whose
            index holds the files.
    """
    if hasattr(labels, "columns"):
        return _of_frame(labels)
    if not isinstance(labels, Mapping) and not _is_column(labels):
        raise HandfulError(
            f"labels of a folder name its files, and this is {_article(type(labels).__name__)} of "
            f"{len(labels)} labels; give a dict from file to label, a data frame with the columns "
            f"file and label, or the path of a CSV"
        )
    pairs = [("" if is_missing(file) else file, label) for file, label in labels.items()]
    wrong = next(
        (
            file
            for file, _ in pairs
            if not hasattr(file, "__fspath__") and not isinstance(file, str)
        ),
        None,
    )
    if wrong is not None:
        raise HandfulError(
            f"the keys of the labels are files, and one is {wrong!r}; of a table, give the whole "
            f"table, or table.set_index('file')['label']"
        )
    texts = class_texts(label for _, label in pairs)
    rows = [
        (n, [str(file), defused(text)])
        for n, ((file, _), text) in enumerate(zip(pairs, texts, strict=True), 1)
    ]
    return Table(["file", "label"], rows)


def _of_frame(frame: Any) -> Table:
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HandfulError(f"the table of labels has several columns {twice[0]!r}; keep one")
    columns = {str(name): list(frame[name]) for name in frame.columns}
    if not {key_of(name) for name in names} & set(FILES) and hasattr(frame, "index"):
        if _are_names(frame.index):
            columns = {"file": list(frame.index), **columns}
    cells = {name: _cells(name, values) for name, values in columns.items()}
    records = [
        (number, list(row)) for number, row in enumerate(zip(*cells.values(), strict=True), 1)
    ]
    return Table(list(cells), records)


def _cells(name: str, values: Sequence[Any]) -> list[str]:
    if key_of(name) in FILES:
        return [_cell(value) for value in values]
    if key_of(name) in LABELS:
        return [defused(text) for text in class_texts(values)]
    return [defused(_cell(value)) for value in values]


def _cell(value: Any) -> str:
    if is_missing(value):
        return ""
    return class_text(value) if isinstance(value, Real | np.bool_) else str(value)


def _are_names(index: Iterable[Any]) -> bool:
    """Whether an index holds names, but for missing ones."""
    given = [key for key in index if not is_missing(key)]
    return bool(given) and all(isinstance(key, str) for key in given)


def _is_column(labels: Any) -> bool:
    """Whether labels are a Series: values with an index."""
    return hasattr(labels, "index") and hasattr(labels, "items")


def _kind(label: Any) -> str:
    if isinstance(label, bool | np.bool_):
        return "true or false"
    if isinstance(label, str):
        return "text"
    return "numbers" if isinstance(label, Real) else f"{type(label).__name__} objects"


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
