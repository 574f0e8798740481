"""Sort images into class folders: `handful predict RUN SOURCE --into TARGET`.

Files are copied; no original and no file of the user is changed. `plan` makes the steps, `execute`
runs them, `manifest` records which copy lies where, and `names` makes names of folders and copies.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handful.data.store import Skipped
from handful.errors import HandfulError
from handful.pipeline.sorting.execute import Execution, explained, sole_sorter
from handful.pipeline.sorting.manifest import Manifest, read_manifest
from handful.pipeline.sorting.names import (
    WITHOUT_LABEL,
    Kind,
    folder_names,
    kinds_of,
    limits,
)
from handful.pipeline.sorting.plan import Places, Plan, Step, inside, make_plan, no_file_of
from handful.progress import Track, quiet
from handful.text import counted, for_terminal

__all__ = ["Sorted", "check_target", "names_below", "sort_into_folders"]


@dataclass(frozen=True, repr=False)
class Sorted:
    """The outcome for every image; with `dry_run`, the planned outcome."""

    target: Path
    dry_run: bool
    steps: tuple[Step, ...]
    left_out: tuple[Skipped, ...]
    folders: dict[Kind, str]  # folder of each kind that has an image

    def __repr__(self) -> str:
        found = self.counts()
        told = [f"{found[what]:,} {what.replace('_', ' ')}" for what in OUTCOMES if found[what]]
        told += [f"{len(self.left_out):,} left out"] if self.left_out else []
        planned = ", planned" if self.dry_run else ""
        return for_terminal(f"Sorted into {self.target}{planned}: {', '.join(told) or 'no file'}")

    def counts(self, kind: Kind | None = None) -> Counter[str]:
        """Return how many images were copied, moved or already there: all, or of one kind."""
        return Counter(_outcome(s) for s in self.steps if kind is None or s.item.kind == kind)

    @property
    def numbered(self) -> list[Step]:
        """Steps whose copy has a number in its name, since another file has the name."""
        return [step for step in self.steps if step.numbered]

    @property
    def shortened(self) -> list[Step]:
        """Steps whose copy has a shortened or changed name, since the target cannot hold it."""
        return [step for step in self.steps if step.shortened]

    @property
    def renamed(self) -> dict[Kind, str]:
        """Folders whose name differs from that of their class."""
        return {kind: name for kind, name in self.folders.items() if name != kind.name}

    def as_json(self) -> dict[str, Any]:
        found = self.counts()
        return {
            "into": str(self.target),
            "dry_run": self.dry_run,
            **{what: found[what] for what in OUTCOMES},
            "numbered": len(self.numbered),
            "shortened": len(self.shortened),
            "classes": [
                {
                    "class": kind.name if kind.what == "class" else None,
                    "folder": folder,
                    **{what: self.counts(kind)[what] for what in OUTCOMES},
                }
                for kind, folder in self.folders.items()
            ],
            "files": [
                {
                    "file": step.item.name,
                    "place": step.place,
                    "was": _outcome(step),
                    "numbered": step.numbered,
                    "shortened": step.shortened,
                }
                for step in self.steps
            ],
        }


OUTCOMES = ("copied", "moved", "already_there")


def _outcome(step: Step) -> str:
    if step.action == "copy":
        return "copied"
    return "moved" if step.old_copies else "already_there"


def names_below(source: Path, folder: Path, names: Sequence[str]) -> list[str]:
    """The names, relative to `folder`, of files that lie in `source`, relative to that.

    They differ where the images were given as a list of paths. A copy of the folder under another
    name has the same files, so a name that is there as it stands counts, too.

    Raises:
        HandfulError: a file lies elsewhere, or none is there.
    """
    if source.is_file():
        return list(names)
    same = os.path.abspath(source) == os.path.abspath(folder)
    found = [
        name
        if same and ".." not in name and not os.path.isabs(name)
        else _name_below(source, folder, name)
        for name in names
    ]
    if found and not any((source / name).exists() for name in found):
        raise HandfulError(
            f"none of {counted(len(found), 'file')} is in {source}, such as {found[0]!r}; give the "
            f"folder that the predictions are of"
        )
    return found


def _name_below(source: Path, folder: Path, name: str) -> str:
    path = folder / name
    if not path.exists():
        return name
    for resolved in (os.path.abspath, os.path.realpath):
        there = Path(resolved(path))
        if there.is_relative_to(resolved(source)):
            return there.relative_to(resolved(source)).as_posix()
    if (source / name).exists():
        return name
    raise no_file_of(source, name)


def sort_into_folders(
    source: Path,
    target: Path,
    names: Sequence[str],
    labels: Sequence[str],
    reasons: Sequence[str],
    classes: Sequence[str],
    dry_run: bool = False,
    track: Track = quiet,
) -> Sorted:
    """Copy each image of `source` into the sub-folder of `target` for its class.

    Only copies of earlier calls are ever changed: they are moved if their class has changed. After
    a killed call, the same call finishes the work.

    Args:
        source: the folder to which `names` are relative, or one file.
        labels: the class of each image; empty: no label.
        reasons: why each image has no label: "none of these", "no detection", or another.
        classes: all classes of the run, so that folder names do not depend on the images.
        dry_run: return the planned outcome and write nothing.

    Raises:
        HandfulError: the target cannot be written, or lies within the source.
    """
    check_target(source, target, classes)
    images = list(zip(names, kinds_of(labels, reasons), strict=True))
    if dry_run:
        plan, folders, _ = _planned(source, target, images, classes, track)
        return Sorted(target, True, tuple(plan.steps), tuple(plan.left_out), folders)
    with sole_sorter(target):
        plan, folders, places = _planned(source, target, images, classes, track)
        execution = Execution(plan, places)
        execution.run(track)
    left_out = (*plan.left_out, *execution.left_out)
    return Sorted(target, False, tuple(execution.done), left_out, folders)


def _planned(
    source: Path,
    target: Path,
    images: Sequence[tuple[str, Kind]],
    classes: Sequence[str],
    track: Track,
) -> tuple[Plan, dict[Kind, str], Places]:
    """Return the plan, the folder of each kind that has an image, and the state of the target."""
    places, known, before = _folders(target, classes)
    with explained(target):
        plan = make_plan(source, images, known, before, places, track)
    used = {step.item.kind for step in plan.steps}
    return plan, {kind: folder for kind, folder in known.items() if kind in used}, places


def _folders(target: Path, classes: Sequence[str]) -> tuple[Places, dict[Kind, str], Manifest]:
    """Return the state of the target, the folder of every kind, and the manifest."""
    kinds = [*(Kind("class", name) for name in classes), *WITHOUT_LABEL]
    with explained(target):
        places = Places(target, limits(target))
        limit = places.limits.folder(target)
        before = read_manifest(target)
        return places, folder_names(kinds, before.known, places.usable, limit), before


def check_target(
    source: Path, target: Path, classes: Sequence[str], trained_on: Path | None = None
) -> None:
    """Raise HandfulError if the target cannot be written, or copies would lie among originals.

    `trained_on` is the folder that the run learned from, where copies would become labels.
    The target may contain the source, as a library contains a folder of new images, unless the
    source is, or lies in, the folder of a class.
    """
    for at in (target, *target.absolute().parents):
        if os.path.lexists(at):
            if not at.is_dir():
                raise HandfulError(
                    f"--into {target}: {at} is a file, or a link to nothing; give a folder that is "
                    f"there or can be made"
                )
            if not os.access(at, os.W_OK):
                raise HandfulError(
                    f"--into {target}: you may not write into {at}; give another folder"
                )
            break
    if source.is_dir() and inside(target, source):
        raise HandfulError(
            f"--into {target} lies in {source}, where the originals are; copies there would be "
            f"taken for originals the next time: give a folder outside of it"
        )
    if trained_on is not None and trained_on.is_dir() and inside(target, trained_on):
        raise HandfulError(
            f"--into {target} lies in {trained_on}, whose images the run was trained on; copies "
            f"there would be taken for labels the next time: give a folder outside of it"
        )
    _, folders, _ = _folders(target, classes)
    if not inside(source, target):
        return
    for kind, folder in folders.items():
        if inside(source, target / folder):
            raise HandfulError(
                f"{source} lies in {target / folder}, where the copies of {kind.name!r} go; give "
                f"--into a folder where no original is"
            )
