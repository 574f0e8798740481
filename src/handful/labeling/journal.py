"""The journal of a labelling session: one line of JSON for every act, on disk before its answer.

The journal is only appended to. A line that a crash or a full disk left unfinished was never
acknowledged, and is cut off. `labels.csv` is made of the journal and can be made again.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from handful.errors import HandfulError
from handful.files import LARGEST_TEXT

Event = dict[str, Any]


class NotSaved(HandfulError):
    """Raised where an act could not be written to disk; it did not happen."""


class Journal:
    """An append-only file of events. One process owns it, and threads may append at once."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal, and lock it.

        Raises:
            HandfulError: another process holds it, or a line in its midst is damaged.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)
        try:
            self._lock_file.acquire()
        except Timeout:
            raise HandfulError(
                f"another `handful label` is writing {path}; use its page, or give another "
                f"--labels or --annotator"
            ) from None
        self._writing = threading.Lock()
        try:
            self.events = _read(path)
            self._file = open(path, "ab", buffering=0)
            self._size = self._file.seek(0, os.SEEK_END)
        except BaseException:
            self._lock_file.release()
            raise

    def append(self, event: Event) -> None:
        """Write one event and flush it to disk; NotSaved leaves the journal as it was."""
        line = _line(event)
        with self._writing:
            try:
                _write_all(self._file, line)
                os.fsync(self._file.fileno())
            except OSError as error:
                self._cut()
                raise NotSaved(
                    f"not saved, {self.path} cannot be written: {error.strerror or error}; make "
                    f"room on the disk, and it is tried again"
                ) from error
            self._size += len(line)
            self.events.append(event)

    def close(self) -> None:
        """Close the file and release the lock."""
        with self._writing:
            self._file.close()
        self._lock_file.release()

    def _cut(self) -> None:
        """Remove what a failed write left, so that the next line starts at the right place."""
        self._file.truncate(self._size)
        self._file.seek(0, os.SEEK_END)


def _line(event: Event) -> bytes:
    return json.dumps(event, allow_nan=False).encode("ascii") + b"\n"


def _write_all(file: Any, content: bytes) -> None:
    """Write all bytes; a nearly full disk takes a part only."""
    done = 0
    while done < len(content):
        done += file.write(content[done:])


def _read(path: Path) -> list[Event]:
    """The events of a journal; an unfinished last line is cut off the file."""
    if not path.exists():
        return []
    if path.stat().st_size > 16 * LARGEST_TEXT:
        raise HandfulError(f"{path} is larger than a journal can be; move it away")
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    events = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or not isinstance(event.get("do"), str):
                raise ValueError("no event")
        except ValueError:
            raise HandfulError(
                f"{path} is damaged in line {number}; move it away: the labels that are in the "
                f"label file beside it are kept"
            ) from None
        events.append(event)
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    return events
