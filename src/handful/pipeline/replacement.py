"""A new run is built beside the old one, and takes its place when it is whole.

The new one grows in `.new` of the folder itself: on the same file system, writable wherever the
folder is, and found again by the same command. Until it is whole the old one can be opened. Taking
the place goes forward only: a process killed within leaves a whole `.new`, and the next call
(`open_run`, or any fit into the folder) ends it. What is neither of the old run nor of the new one
is not touched, and tables with typed labels are kept.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from handful.files import read_json, replace, sole_writer, tidy, write_json
from handful.pipeline.typed_labels import set_aside
from handful.progress import silent

NEW = ".new"
_REPLACED = ".replaced"  # which run takes the place with which files, until its fit knows


@dataclass(frozen=True)
class Layout:
    """What a folder of one kind holds."""

    record: str  # the file that is the sign of a whole run
    artifacts: Sequence[str]  # names, or patterns, of all other files of it

    def files(self, folder: Path) -> list[Path]:
        """Those that are there, as paths within the folder, the record not among them."""
        found = (path for pattern in self.artifacts for path in sorted(folder.glob(pattern)))
        return [p.relative_to(folder) for p in found if p.is_symlink() or not p.is_dir()]


def stopped_half_way(folder: Path, layout: Layout) -> bool:
    """Whether a process was killed while a new run took the place of the old one."""
    return not (folder / layout.record).exists() and _whole(folder, layout)


def complete(folder: Path, layout: Layout) -> None:
    """End what a killed process left half way, where that is so; takes the lock of the folder."""
    if stopped_half_way(folder, layout):
        with sole_writer(folder):
            take_place(folder, layout)


def take_place(folder: Path, layout: Layout, say: Callable[[str], None] = silent) -> bool:
    """Put the run in `.new`, if it is whole, in place of the one in `folder`; whether it was.

    Only for a process that holds the lock of the folder.
    """
    new, record = folder / NEW, folder / layout.record
    if not _whole(folder, layout):
        return False
    made = record.stat().st_mtime if record.exists() else None
    names = [name.as_posix() for name in layout.files(new)]
    if made is not None:
        mark = read_json(new / layout.record).get("fingerprint")
        write_json(folder / _REPLACED, {"fingerprint": mark, "files": names})
    elif (folder / _REPLACED).exists():  # killed on the way: some are there already
        names = read_json(folder / _REPLACED)["files"]
    else:
        names += [name.as_posix() for name in layout.files(folder)]
    for name in layout.files(folder):
        if name.suffix == ".csv":
            set_aside(folder / name, say, made)
    record.unlink(missing_ok=True)  # from here on there is no way back, only forward
    for name in layout.files(folder):
        if name.as_posix() not in names:
            (folder / name).unlink(missing_ok=True)
            _drop_if_empty((folder / name).parent, folder)
    for name in layout.files(new):
        (folder / name).parent.mkdir(exist_ok=True)
        if name.suffix == ".csv":
            set_aside(folder / name, say)  # an editor may have saved it again by now
        replace(new / name, folder / name)
    replace(new / layout.record, record)
    shutil.rmtree(new, ignore_errors=True)
    return True


def replaced_before(folder: Path, mark: str) -> bool:
    """Whether the run of this fingerprint took its place without its fit knowing; told once."""
    path = folder / _REPLACED
    known = path.exists() and read_json(path)["fingerprint"] == mark
    path.unlink(missing_ok=True)
    return known


def drop_remains(folder: Path) -> None:
    """Remove a `.new` that holds nothing any more."""
    if (folder / NEW).is_dir() and not (folder / NEW).is_symlink():
        tidy(folder / NEW)
        _drop_if_empty(folder / NEW, folder)


def _whole(folder: Path, layout: Layout) -> bool:
    new = folder / NEW
    return not new.is_symlink() and (new / layout.record).is_file()


def _drop_if_empty(inner: Path, folder: Path) -> None:
    if inner != folder and inner.is_dir() and not any(inner.iterdir()):
        inner.rmdir()
