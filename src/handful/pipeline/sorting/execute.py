"""Execute a plan: files are copied beside their place and renamed; no file is ever replaced."""

import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from handful.data.store import Skipped
from handful.errors import HandfulError
from handful.files import tidy
from handful.pipeline.sorting.manifest import MANIFEST, Folder, Manifest
from handful.pipeline.sorting.plan import (
    CHUNK,
    REFUSED,
    Item,
    LeftOut,
    Places,
    Plan,
    Step,
    content,
    open_regular,
    why_unreadable,
)
from handful.progress import Track

LOCK = ".handful-sorted.lock"
PART = re.compile(r"\.handful-[0-9a-f]{8}\.part")
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def sole_sorter(target: Path) -> Iterator[None]:
    """Context manager: create the target and lock it; HandfulError if another process has it.

    The lock is the operating system's: it ends with the process.
    """
    path = target / LOCK
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise HandfulError(f"{path} is no lock of handful, which are regular files; remove it")
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise HandfulError(
                f"another process sorts into {target} now; wait until it has ended, or give "
                f"another --into"
            ) from None
    try:
        tidy(target, MANIFEST)
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file: there, release does it
            path.unlink(missing_ok=True)  # before the release: after it, it may be another's
        lock.release()


@contextmanager
def explained(target: Path, done: str = "") -> Iterator[None]:
    """Context manager: turn an OSError of the target into a HandfulError with a remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        reason = "no space is left" if full else (error.strerror or str(error)).lower()
        remedy = "free some space" if full else "repair that"
        raise HandfulError(
            f"cannot sort into {target}: {reason}; {done}{remedy}, or give another --into; then "
            f"run this command again to go on"
        ) from error


class Execution:
    """Runs the steps of a plan one by one."""

    def __init__(self, plan: Plan, places: Places) -> None:
        self.plan, self.places, self.target = plan, places, places.target
        self.steps = list(plan.steps)  # changed where a place was taken meanwhile
        self.entries = [step.entry_before for step in plan.steps]
        self.folders = dict(plan.before.folders)
        self.left_out: list[Skipped] = []
        self.done: list[Step] = []
        self.saved = plan.before

    def run(self, track: Track) -> None:
        """Run all steps. Unreadable images are left out; HandfulError if the target fails."""
        with explained(self.target):
            for step in self.steps:
                name = step.place.split("/")[0]
                if not os.path.lexists(self.target / name):
                    self.folders[name] = Folder(step.item.kind, made=True)
                self.folders.setdefault(name, Folder(step.item.kind, made=False))
            self._save()
            self._tidy()
        for at, step in enumerate(track(self.plan.steps, len(self.plan.steps), "sorting files")):
            try:
                with explained(self.target, f"{len(self.done)} images are sorted and stay so; "):
                    self._do(at)
                    self.done.append(self.steps[at])
            except LeftOut as reason:
                self.left_out.append(Skipped(step.item.name, str(reason)))
                self._drop_entry(at)
            except HandfulError:
                for later in range(at, len(self.steps)):
                    self._drop_entry(later)
                with suppress(OSError):
                    self._save()
                raise
        with explained(self.target):
            self._finish()

    def _drop_entry(self, at: int) -> None:
        """Remove the entry of a copy that was not made; one to be moved keeps both places."""
        if self.steps[at].action == "copy":
            self.entries[at] = None

    def _save(self) -> None:
        kept = [entry for entry in self.entries if entry is not None]
        files = sorted([*self.plan.others, *kept], key=lambda entry: entry.place)
        now = Manifest(dict(sorted(self.folders.items())), files)
        if now != self.saved:
            now.write(self.target)
            self.saved = now

    def _tidy(self) -> None:
        """Delete partial copies of killed processes."""
        for name in self.folders:
            if os.path.lexists(self.target / name) and self.places.usable(name):
                for left in os.scandir(self.target / name):
                    if PART.fullmatch(left.name) and left.is_file(follow_symlinks=False):
                        os.unlink(left.path)

    def _do(self, at: int) -> None:
        step = self.steps[at]
        if step.action == "copy":
            self._make_folder(step)
            part = self._copied(step)
            try:
                self._publish(at, part)
            finally:
                part.unlink(missing_ok=True)
        elif step.action == "move":
            self._make_folder(step)
            if not self.places.holds(step.old_copies[0], step.item.bytes, step.item.sha256):
                raise LeftOut(f"its copy {step.old_copies[0]} was changed meanwhile")
            self._publish(at, self.target / step.old_copies[0])
        step = self.steps[at]
        for place in step.old_copies[1:] if step.action == "move" else step.old_copies:
            self._remove(place, step.item)
        self.entries[at] = step.entry

    def _make_folder(self, step: Step) -> None:
        """Make the folder of a step; LeftOut if something else has its name by now."""
        name = step.place.split("/")[0]
        if not self.places.usable(name):
            raise LeftOut(f"{name} in the target is no folder any more")
        (self.target / name).mkdir(exist_ok=True)

    def _copied(self, step: Step) -> Path:
        """Copy the original to a temporary file beside its place, and return that file."""
        part = (self.target / step.place).with_name(f".handful-{uuid.uuid4().hex[:8]}.part")
        digest = hashlib.sha256()
        with _original(step.item) as original:
            times = os.fstat(original.fileno())
            try:
                with open(os.open(part, NEW, 0o666), "wb") as copy:
                    while chunk := _read(original):
                        digest.update(chunk)
                        copy.write(chunk)
                    copy.flush()
                    os.fsync(copy.fileno())
                if digest.hexdigest() != step.item.sha256:
                    raise LeftOut("changed while it was copied")
                with suppress(OSError):  # optional: programs sort photographs by it
                    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return part

    def _publish(self, at: int, file: Path) -> None:
        """Rename a file to the place of its step, or to the next free one."""
        for safe in (False, False, True, True, True):
            if self.steps[at].action == "keep":
                return
            try:
                _rename(file, self.target / self.steps[at].place)
                return
            except FileExistsError:
                self._place_again(at, safe)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise LeftOut("its new folder is on another file system") from error
                if error.errno not in REFUSED:
                    raise
                self._place_again(at, safe=True)
        raise LeftOut("its place in the target was taken again and again")

    def _place_again(self, at: int, safe: bool) -> None:
        step = self.steps[at]
        self.places.release(step.place)
        placement = self.places.place_copy(step.item, step.place.split("/")[0], safe)
        place, numbered, shortened = placement.place, placement.numbered, placement.shortened
        step = replace(step, place=place, numbered=numbered, shortened=shortened)
        entry = entry_before = None  # of a file that another process put there
        if not placement.there and step.entry and step.entry_before:
            entry, entry_before = (
                replace(step.entry, place=place),
                replace(step.entry_before, place=place),
            )
        elif step.old_copies and step.entry_before:
            entry_before = replace(
                step.entry_before, place=step.old_copies[0], was=step.old_copies[1:]
            )
        action = "keep" if placement.there else step.action
        step = replace(step, action=action, entry=entry, entry_before=entry_before)
        self.steps[at], self.entries[at] = step, step.entry_before
        self._save()

    def _remove(self, place: str, item: Item) -> None:
        """Delete a second copy of ours, unless it was changed."""
        if not self.places.usable(place.split("/")[0]):
            return
        with suppress(FileNotFoundError):
            path = self.target / place
            if not path.is_symlink() and content(path) == (item.bytes, item.sha256):
                path.unlink()

    def _finish(self) -> None:
        """Remove empty folders that we made, and write the manifest."""
        used = {entry.place.split("/")[0] for entry in self.entries if entry is not None}
        used |= {place.split("/")[0] for e in self.plan.others for place in (e.place, *e.was)}
        for name, folder in list(self.folders.items()):
            path = self.target / name
            if name not in used and folder.made and self.places.usable(name):
                with suppress(OSError):  # it is not empty
                    path.rmdir()
            if name not in used and not os.path.lexists(path):
                del self.folders[name]
            elif name in used:
                _sync(path)
        self._save()


def _original(item: Item) -> IO[bytes]:
    try:
        return open_regular(item.path)
    except OSError as error:
        raise LeftOut(why_unreadable(error)) from error


def _read(original: IO[bytes]) -> bytes:
    try:
        return os.read(original.fileno(), CHUNK)
    except OSError as error:
        raise LeftOut(why_unreadable(error)) from error


def _rename(old: Path, new: Path) -> None:
    """Rename a file; FileExistsError instead of replacing another one."""
    if os.name != "nt":  # where a rename replaces
        try:
            os.link(old, new)
        except FileExistsError:
            raise
        except OSError:  # most likely a file system without hard links, as on memory cards
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, "taken meanwhile", str(new)) from None
        else:
            os.unlink(old)
            return
    os.rename(old, new)


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
