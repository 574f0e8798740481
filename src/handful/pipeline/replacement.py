"""Replace a finished run by a new one without a moment in which neither can be opened.

The new run is built in the sub-folder `.new`: on the same file system, and found again by the same
command. Until it is complete the old run can be opened. The replacement goes forward only: a
process killed meanwhile leaves a complete `.new`, and the next call (`open_run`, or any fit into
the folder) finishes it. Files of neither run are not touched, and tables with typed labels are
kept.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handful.files import read_json, replace, sole_writer, tidy, write_json
from handful.pipeline.typed_labels import keep_typed_labels
from handful.progress import Say, warned

NEW = ".new"
BETTER = ".better"  # a better interim run, while the last one is built in `.new`
STAGES = (BETTER, NEW)  # in the order in which they are put in place
_REPLACED = ".replaced"  # fingerprint and files of a run put in place, until its fit has read it


@dataclass(frozen=True)
class Layout:
    """File names of a run folder or a pre-training folder."""

    record: str  # written last: present only in a complete folder
    artifacts: Sequence[str]  # names or patterns of all other files

    def files(self, folder: Path) -> list[Path]:
        """Return the artifacts that exist, as paths relative to the folder, without the record."""
        found = (path for pattern in self.artifacts for path in sorted(folder.glob(pattern)))
        return [p.relative_to(folder) for p in found if p.is_symlink() or not p.is_dir()]


def interrupted(folder: Path, layout: Layout) -> bool:
    """Return whether a process was killed while it replaced the old run by the new one."""
    return not (folder / layout.record).exists() and any(
        _is_whole(folder, layout, stage) for stage in STAGES
    )


def put_in_place_if_begun(folder: Path, layout: Layout, say: Say = warned) -> bool:
    """Finish a replacement whose process was killed, also where the old run is still complete.

    Then some tables of the old run may be missing already. Takes the lock of the folder.

    Returns:
        Whether there was one.
    """
    if not (folder / _REPLACED).exists() or not _is_whole(folder, layout, NEW):
        return False
    with sole_writer(folder):
        return put_in_place(folder, layout, say)


def finish_replacement(folder: Path, layout: Layout, say: Say = warned) -> None:
    """Finish an interrupted replacement, if there is one; takes the lock of the folder."""
    if interrupted(folder, layout):
        with sole_writer(folder):
            for stage in STAGES:
                put_in_place(folder, layout, say, stage)


def put_in_place(folder: Path, layout: Layout, say: Say = warned, stage: str = NEW) -> bool:
    """Replace the run in `folder` by the one in `stage`, and return whether that was complete.

    The caller must hold the lock of the folder.

    Args:
        say: receives a sentence for each table with typed labels: where it is kept.
    """
    new, record = folder / stage, folder / layout.record
    if not _is_whole(folder, layout, stage):
        return False
    finished_at = record.stat().st_mtime if record.exists() else None
    names = [name.as_posix() for name in layout.files(new)]
    if finished_at is not None:
        fingerprint = read_json(new / layout.record).get("fingerprint")
        write_json(folder / _REPLACED, {"fingerprint": fingerprint, "files": names})
    elif (folder / _REPLACED).exists():  # killed meanwhile: some files are in place already
        names = read_json(folder / _REPLACED)["files"]
    else:
        names += [name.as_posix() for name in layout.files(folder)]
    for name in layout.files(folder):
        if name.suffix == ".csv":
            keep_typed_labels(folder / name, say, finished_at)
    record.unlink(missing_ok=True)  # from here on there is no way back, only forward
    for name in layout.files(folder):
        if name.as_posix() not in names:
            (folder / name).unlink(missing_ok=True)
            _remove_empty_folder((folder / name).parent, folder)
    for name in layout.files(new):
        (folder / name).parent.mkdir(exist_ok=True)
        if name.suffix == ".csv":
            keep_typed_labels(folder / name, say)  # an editor may have saved the file meanwhile
        replace(new / name, folder / name)
    replace(new / layout.record, record)
    shutil.rmtree(new, ignore_errors=True)
    return True


def already_replaced(folder: Path, fingerprint: str) -> bool:
    """Return whether an earlier call put the run of this fingerprint in place, and forget it."""
    path = folder / _REPLACED
    replaced = path.exists() and read_json(path)["fingerprint"] == fingerprint
    path.unlink(missing_ok=True)
    return replaced


def remove_if_empty(folder: Path) -> None:
    """Remove `.new` if it is empty."""
    if (folder / NEW).is_dir() and not (folder / NEW).is_symlink():
        tidy(folder / NEW)
        _remove_empty_folder(folder / NEW, folder)


def _is_whole(folder: Path, layout: Layout, stage: str) -> bool:
    new = folder / stage
    return not new.is_symlink() and (new / layout.record).is_file()


def _remove_empty_folder(inner: Path, folder: Path) -> None:
    if inner != folder and inner.is_dir() and not any(inner.iterdir()):
        inner.rmdir()
