"""Merge the label files of several annotators; what they disagree on stays without a label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handful.csv_files import read_csv
from handful.errors import HandfulError
from handful.labeling.label_table import is_own, read_labels
from handful.labeling.marks import LABEL, UNSURE, Mark


@dataclass(frozen=True)
class Merged:
    """The marks of all files, and what they disagree on."""

    marks: dict[str, Mark]
    groups: dict[str, str]
    disagreements: dict[str, dict[str, str]]  # image → file → what it says
    agreed: int  # images that two or more files give the same label


def merge(paths: Sequence[Path]) -> Merged:
    """Merge label files that the page wrote; HandfulError for other files, or fewer than two."""
    if len(paths) < 2:
        raise HandfulError("merge takes two label files or more: handful labels merge a.csv b.csv")
    found: dict[str, dict[str, Mark]] = {}
    groups: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            raise HandfulError(f"no label file {path}; check the path")
        if not is_own(path):
            raise HandfulError(
                f"{path} was not written by `handful label`; give its own label files, with the "
                f"columns file and label"
            )
        names = [row["file"] for row in read_csv(path)]
        marks, of_group = read_labels(path, names, path.parent, lambda text: None)
        found[str(path)] = marks
        groups |= of_group
    merged, disagreements, agreed = {}, {}, 0
    for name in sorted({name for marks in found.values() for name in marks}):
        of_image = {path: marks[name] for path, marks in found.items() if name in marks}
        said = {path: mark.label or mark.kind for path, mark in of_image.items()}
        if len(set(said.values())) > 1:
            disagreements[name] = said
            merged[name] = Mark(UNSURE, None, "chosen", "", _who(of_image))
        else:
            merged[name] = _one(of_image)
            agreed += len(of_image) > 1 and merged[name].kind == LABEL
    return Merged(merged, groups, disagreements, agreed)


def _one(marks: Mapping[str, Mark]) -> Mark:
    """One mark of several that agree; a blind label of a random image stays one."""
    best = min(marks.values(), key=lambda mark: (mark.origin != "random", mark.seen != "blind"))
    return best._replace(by=_who(marks))


def _who(marks: Mapping[str, Mark]) -> str:
    return " ".join(sorted({mark.by for mark in marks.values() if mark.by}))
