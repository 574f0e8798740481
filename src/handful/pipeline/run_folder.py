"""Acquire and clean up a run folder."""

import shlex
import shutil
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.data.source_names import redacted
from handful.data.store import Vanished
from handful.errors import HandfulError
from handful.evaluation.cross_validation import Key
from handful.files import read_json, read_tensors, tidy, write_json, write_tensors
from handful.output import next_folder
from handful.pipeline.artifacts import (
    ASKED,
    CHECKPOINT,
    COMMAND,
    FINGERPRINT,
    NO_WORK,
    RECORD,
    RUN_LAYOUT,
)
from handful.pipeline.replacement import (
    BETTER,
    NEW,
    STAGES,
    Layout,
    already_replaced,
    put_in_place,
    remove_if_empty,
)
from handful.pipeline.typed_labels import keep_typed_labels
from handful.progress import Say, warned

_UNKNOWN = "other images, labels, settings, time or seed"


class SavedFolds(MutableMapping[Key, np.ndarray]):
    """Predictions of finished folds as files, (n_held, K) each, so that an estimate resumes."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def _path(self, key: Key) -> Path:
        return self.work / f"predicted-{'-'.join(map(str, key))}.safetensors"

    def __getitem__(self, key: Key) -> np.ndarray:
        if not self._path(key).exists():
            raise KeyError(key)
        return read_tensors(self._path(key))[0]["probabilities"].numpy()

    def __setitem__(self, key: Key, probabilities: np.ndarray) -> None:
        write_tensors(self._path(key), {"probabilities": torch.from_numpy(probabilities)})

    def __delitem__(self, key: Key) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[Key]:
        for path in sorted(self.work.glob("predicted-*.safetensors")):
            yield Key(*map(int, path.stem.split("-")[1:]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def acquire(
    folder: Path,
    fingerprint: str,
    overwrite: bool,
    layout: Layout = RUN_LAYOUT,
    *,
    improves: str | None = None,
    asked: Mapping[str, Any] | None = None,
    say: Say = warned,
) -> Path | None:
    """Return the folder in which to build a run; None if it is there already, finished.

    The run is built in `folder` itself. With `overwrite`, and another finished run in `folder`, it
    is built in a sub-folder (see `handful.pipeline.replacement`); so it is where `folder` holds
    the interim run that it improves. A process killed at any line leaves a folder that the next
    call accepts. The caller must hold the lock of the folder.

    Args:
        improves: fingerprint of an interim run that may be replaced.
        asked: what `write_command` keeps of this run, to say how an unfinished one differs.

    Raises:
        HandfulError: the folder holds another run and `overwrite` is off, or other files.
    """
    for stage in STAGES:
        put_in_place(folder, layout, say, stage)
    shutil.rmtree(folder / BETTER, ignore_errors=True)  # what a killed process began
    replaced = already_replaced(folder, fingerprint)
    fingerprint_file = folder / CHECKPOINT / FINGERPRINT
    if (folder / layout.record).exists():
        if improves is not None and holds_interim(folder, improves):
            remove_if_empty(folder)
            begun = folder / NEW / CHECKPOINT / FINGERPRINT
            if begun.exists() and read_json(begun) != fingerprint:
                made = _made_with(folder / NEW, asked)
                refuse_unless_overwrite(overwrite, folder, "unfinished", made)
            return _start_over(folder / NEW, fingerprint, layout)
        stopped = holds_interim(folder, fingerprint)  # and the same command goes on with it
        if _recorded_fingerprint(folder / layout.record, overwrite) == fingerprint and (
            stopped or replaced or not overwrite
        ):
            return None
        state = "finished" if not holds_interim(folder) else "stopped before its end"
        refuse_unless_overwrite(overwrite, folder, state)
        remove_if_empty(folder)
        return _start_over(folder / NEW, fingerprint, layout)
    if fingerprint_file.exists():
        if read_json(fingerprint_file) == fingerprint:
            return folder
        refuse_unless_overwrite(overwrite, folder, "unfinished", _made_with(folder, asked))
        for name in layout.files(folder):
            if name.suffix == ".csv":
                keep_typed_labels(folder / name, say)
        return _start_over(folder, fingerprint, layout)
    if _holds_other_files(folder):
        raise HandfulError(f"{folder} holds other files; give --out a folder that is new or empty")
    fingerprint_file.parent.mkdir(exist_ok=True)
    write_json(fingerprint_file, fingerprint)
    return folder


def write_command(built: Path, command: Sequence[str], asked: Mapping[str, Any]) -> None:
    """Write the command of an unfinished run into its checkpoint, so that others know it.

    Args:
        asked: `images` (a hash), `budget` (seconds, or None) and `seed`.
    """
    write_json(built / CHECKPOINT / COMMAND, [redacted(word) for word in command])
    write_json(built / CHECKPOINT / ASKED, dict(asked))


def holds_interim(folder: Path, fingerprint: str | None = None) -> bool:
    """Return whether a folder holds an interim run, or the one of this fingerprint."""
    try:
        found = read_json(folder / RECORD) if (folder / RECORD).exists() else None
    except HandfulError:  # damaged
        return False
    if not isinstance(found, dict) or found.get("interim") is not True:
        return False
    return fingerprint is None or bool(found.get("fingerprint") == fingerprint)


def _recorded_fingerprint(record: Path, overwrite: bool) -> str | None:
    """Return the fingerprint in a record; None if it is damaged and may be overwritten."""
    try:
        found = read_json(record)
    except HandfulError:
        if not overwrite:
            raise
        return None
    if not isinstance(found, dict) or "fingerprint" not in found:
        raise HandfulError(
            f"{record} was not written by handful; give --out a folder that is new or empty"
        )
    return found["fingerprint"]


def _start_over(build: Path, fingerprint: str, layout: Layout) -> Path:
    """Empty the build folder of an earlier run, write the fingerprint, and return the folder.

    An unfinished run of equal fingerprint is kept as it is.
    """
    fingerprint_file = build / CHECKPOINT / FINGERPRINT
    if fingerprint_file.exists() and read_json(fingerprint_file) == fingerprint:
        return build
    if (
        build.is_symlink()
        or not fingerprint_file.exists()
        and build.exists()
        and _holds_other_files(build)
    ):
        raise HandfulError(
            f"{build} holds files that no run wrote; move them away or give another --out"
        )
    fingerprint_file.parent.mkdir(parents=True, exist_ok=True)
    write_json(fingerprint_file, "being overwritten")  # first: a killed process leaves a run
    for path in fingerprint_file.parent.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != fingerprint_file:
            path.unlink()
    for name in (Path(layout.record), *layout.files(build)):
        (build / name).unlink(missing_ok=True)
    write_json(fingerprint_file, fingerprint)
    return build


def finish(folder: Path, built: Path, layout: Layout = RUN_LAYOUT, say: Say = warned) -> None:
    """Delete the checkpoint of a complete run, and move it to its place if built elsewhere."""
    clean_up(built)
    if built != folder:
        fingerprint = read_json(built / layout.record)["fingerprint"]
        put_in_place(folder, layout, say)
        already_replaced(folder, fingerprint)


@contextmanager
def abandon_on_vanished(folder: Path | None, fingerprint: str) -> Iterator[None]:
    """Context manager: on `Vanished`, delete the checkpoint of this fingerprint and raise again.

    The job then starts again on the remaining images, which is another run.
    """
    try:
        yield
    except Vanished:
        for built in [] if folder is None else [folder, folder / NEW]:
            fingerprint_file = built / CHECKPOINT / FINGERPRINT
            if fingerprint_file.exists() and read_json(fingerprint_file) == fingerprint:
                shutil.rmtree(built / CHECKPOINT)
        if folder is not None:
            remove_if_empty(folder)
        raise


@contextmanager
def release_on_refusal(work: Path | None) -> Iterator[None]:
    """Context manager: on HandfulError, delete the checkpoint folder if it holds no work yet.

    A call with another budget can then use the folder.
    """
    try:
        yield
    except HandfulError:
        if work is not None and work.is_dir() and {p.name for p in work.iterdir()} <= NO_WORK:
            shutil.rmtree(work)
            if work.parent.name == NEW:
                remove_if_empty(work.parent.parent)
        raise


def clean_up(folder: Path) -> None:
    """Delete the checkpoint of a finished run, and temporary files of killed processes."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    tidy(folder)


def _holds_other_files(folder: Path) -> bool:
    """Return whether a folder holds anything but hidden files, STAGES and an empty checkpoint."""
    for path in folder.rglob("*"):
        within = path.relative_to(folder).parts
        if within[0] not in STAGES and not path.name.startswith(".") and within != (CHECKPOINT,):
            return True
    return False


def _made_with(build: Path, asked: Mapping[str, Any] | None) -> str:
    """How an unfinished run differs from what is asked now, and how to go on with it."""
    file = build / CHECKPOINT / ASKED
    before = read_json(file) if file.is_file() else None
    if asked is None or not isinstance(before, dict) or before.keys() != asked.keys():
        return _UNKNOWN
    if before["images"] != asked["images"]:
        return "other images or labels"
    differ = [name for name in ("budget", "seed") if before[name] != asked[name]]
    if not differ:
        return "other settings"
    first, second = (
        " and ".join(f"{name} {_in_words(name, one[name])}" for name in differ)
        for one in (before, asked)
    )
    return f"{first}, and this one has {second} (the same call with {first} goes on with it)"


def _in_words(name: str, value: Any) -> str:
    return f"{value:g} s" if name == "budget" and value is not None else str(value).lower()


def refuse_unless_overwrite(
    overwrite: bool, folder: Path, state: str, made: str = _UNKNOWN
) -> None:
    """Raise HandfulError, with the name of a free folder, unless the run may be replaced."""
    if not overwrite:
        raise HandfulError(
            f"{folder} holds another run, {state}, made with {made}; give another folder, --out "
            f"{shlex.quote(str(next_folder(folder)))} (--after FOLDER goes on from its labels), or "
            f"--overwrite (in Python overwrite=True) to put this one in its place"
        )
