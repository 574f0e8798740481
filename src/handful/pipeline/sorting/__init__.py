"""`handful predict RUN SOURCE --into TARGET`: copies in one folder per class, no file harmed.

`plan` finds out what has to be done, `execute` does it, `manifest` keeps what was put where, and
`names` holds the names of folders and copies.
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
    NO_ANSWER,
    NONE_OF_THESE,
    Kind,
    folder_names,
    kinds_of,
    limits,
)
from handful.pipeline.sorting.plan import Places, Plan, Step, inside, make_plan
from handful.progress import Track, quiet

__all__ = ["Sorted", "check_target", "sort_into_folders"]


@dataclass(frozen=True)
class Sorted:
    """What became of every image; with `dry_run`, what would."""

    target: Path
    dry_run: bool
    steps: tuple[Step, ...]
    left_out: tuple[Skipped, ...]
    folders: dict[Kind, str]  # of the kinds that have an image

    def counts(self, kind: Kind | None = None) -> Counter[str]:
        """How many images were copied, moved or already there: all, or those of one kind."""
        return Counter(_outcome(s) for s in self.steps if kind is None or s.item.kind == kind)

    @property
    def numbered(self) -> list[Step]:
        """Copies with a number in their name, since another file has the name."""
        return [step for step in self.steps if step.numbered]

    @property
    def shortened(self) -> list[Step]:
        """Copies with a shorter or changed name, since the target cannot hold the name."""
        return [step for step in self.steps if step.shortened]

    @property
    def renamed(self) -> dict[Kind, str]:
        """Folders that are not called as their class."""
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


def sort_into_folders(
    source: Path,
    target: Path,
    names: Sequence[str],
    labels: Sequence[str],
    none_of_these: Sequence[bool],
    classes: Sequence[str],
    dry_run: bool = False,
    track: Track = quiet,
) -> Sorted:
    """Bring a copy of each image of `source` into the sub-folder of `target` for its class.

    No file that an earlier call did not put there is changed or replaced. What an earlier call did
    put there is moved if its class is another now. A call that was killed is finished by the same
    call.

    Args:
        source: the folder that `names` are relative to, or the one file.
        labels: the class of each image; empty: without a label.
        none_of_these: whether it is without one as it is unlike all that the run has seen.
        classes: all that there are, so that folders do not depend on which appear.
        dry_run: find out what would be done, and do nothing.
    """
    check_target(source, target, classes)
    images = list(zip(names, kinds_of(labels, none_of_these), strict=True))
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
    """The plan, and the folder of each kind that has an image."""
    places, known, before = _folders(target, classes)
    with explained(target):
        plan = make_plan(source, images, known, before, places, track)
    used = {step.item.kind for step in plan.steps}
    return plan, {kind: folder for kind, folder in known.items() if kind in used}, places


def _folders(target: Path, classes: Sequence[str]) -> tuple[Places, dict[Kind, str], Manifest]:
    """The folder of every kind, after what earlier calls have put into the target."""
    kinds = [*(Kind("class", name) for name in classes), NONE_OF_THESE, NO_ANSWER]
    with explained(target):
        places = Places(target, limits(target))
        limit = places.limits.folder(target)
        before = read_manifest(target)
        return places, folder_names(kinds, before.known, places.usable, limit), before


def check_target(source: Path, target: Path, classes: Sequence[str]) -> None:
    """HandfulError where copies of `source` would lie among originals, or nowhere.

    The target may lie above the source, as a library lies above the folder of what is new, but for
    a source that is, or is in, the folder of a class.
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
    _, folders, _ = _folders(target, classes)
    if not inside(source, target):
        return
    for kind, folder in folders.items():
        if inside(source, target / folder):
            raise HandfulError(
                f"{source} lies in {target / folder}, where the copies of {kind.name!r} go; give "
                f"--into a folder where no original is"
            )
