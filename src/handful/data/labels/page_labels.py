"""Find the labels that `handful label` wrote by default, for images that have no others."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from handful.data.class_names import normalized
from handful.data.labels.label_file import LabelFile, match_labels
from handful.errors import HandfulError
from handful.text import counted

TABLE = "labels.csv"  # what `handful label` writes in the present folder
LEAST_SHARE = 0.5  # of its labels that must be of the images: another folder may share some names


class PageLabels(NamedTuple):
    """The label file of the page, if it is of the images, or why it is not used."""

    file: LabelFile | None
    said: str  # a sentence with the file; without it, half a sentence that tells what was missing
    labels: Mapping[str, str] = {}  # of the images that the file labels, by name


def page_labels(names: Iterable[str], source: str, root: Path) -> PageLabels:
    """Return the label file in the present folder if its labels are of the images of `source`.

    Args:
        names: of the images, relative to `root`.
    """
    path = Path(TABLE)
    if not path.is_file():
        return PageLabels(None, f"there is no {TABLE} here")
    try:
        matched = match_labels(LabelFile(path), names, root)
    except HandfulError:
        return PageLabels(None, f"the {TABLE} here names none of its images")
    labels = {name: normalized(row.label) for name, row in matched.rows.items() if row.label}
    if not labels:
        return PageLabels(None, f"the {TABLE} here gives none of its images a label")
    if len(labels) < LEAST_SHARE * (len(labels) + len(matched.unused)):
        return PageLabels(
            None,
            f"most images that the {TABLE} here names are not in it (--labels {TABLE} uses it)",
        )
    said = (
        f"{source}: it has no labels of its own, and {counted(len(labels), 'label')} of its images "
        f"are in {TABLE} here, where handful label writes them; they are used (--labels takes "
        f"another file)"
    )
    return PageLabels(LabelFile(path), said, labels)
