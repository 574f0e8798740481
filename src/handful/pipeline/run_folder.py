"""The folder of a run while it is made: whose it is, what goes into it, what is cleared away."""

import shutil
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from handful.csv_files import write_csv
from handful.data.imageset import ImageSet
from handful.data.splits import save_draw
from handful.data.store import Vanished
from handful.errors import HandfulError
from handful.evaluation.active_learning import POOL, how_many, shuffled, suggest
from handful.evaluation.cross_validation import Key
from handful.evaluation.label_errors import LabelIssue
from handful.evaluation.novelty import fit_in_distribution, save_in_distribution
from handful.files import read_json, read_tensors, tidy, write_json, write_tensors
from handful.methods.base import Task
from handful.pipeline.artifacts import (
    IN_DISTRIBUTION,
    ISSUES,
    LABEL_NEXT,
    LABELS,
    OUT_OF_FOLD,
    RUN,
)
from handful.pipeline.replacement import (
    NEW,
    Layout,
    drop_remains,
    replaced_before,
    take_place,
)
from handful.pipeline.run import Run, pixel_marks
from handful.pipeline.typed_labels import set_aside
from handful.progress import Track, silent

_MARK = "fingerprint.json"  # in checkpoint/ of a folder that a run has claimed


class Finished(MutableMapping[Key, np.ndarray]):
    """Predictions of finished folds, kept as files, so that a killed estimate goes on."""

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


def claim(
    folder: Path,
    mark: str,
    overwrite: bool,
    layout: Layout = RUN,
    say: Callable[[str], None] = silent,
) -> Path | None:
    """Where to build the run of this fingerprint; None if the folder holds it already, finished.

    That is the folder itself; or, where it holds another finished run and `overwrite` is set, a
    folder in it (see `handful.pipeline.replacement`). HandfulError if it holds another run without
    `overwrite`, or anything else. A process killed at any line of this leaves a folder that the
    same call accepts. Only for a process that holds the lock of the folder.
    """
    take_place(folder, layout, say)
    known = replaced_before(folder, mark)
    started = folder / "checkpoint" / _MARK
    if (folder / layout.record).exists():
        if _fingerprint(folder / layout.record, overwrite) == mark and (known or not overwrite):
            return None
        _refuse_unless(overwrite, f"{folder} holds another run, finished,")
        drop_remains(folder)
        return _begun(folder / NEW, mark, layout)
    if started.exists():
        if read_json(started) == mark:
            return folder
        _refuse_unless(overwrite, f"{folder} holds another run, unfinished,")
        for name in layout.files(folder):
            if name.suffix == ".csv":
                set_aside(folder / name, say)
        return _begun(folder, mark, layout)
    if _foreign(folder):
        raise HandfulError(f"{folder} holds other files; give --out a folder that is new or empty")
    started.parent.mkdir(exist_ok=True)
    write_json(started, mark)
    return folder


def _fingerprint(record: Path, overwrite: bool) -> str | None:
    """Of the finished run; None if its record is damaged and is to be overwritten."""
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


def _begun(build: Path, mark: str, layout: Layout) -> Path:
    """A folder with nothing but this mark in it; or what the same run left there unfinished."""
    started = build / "checkpoint" / _MARK
    if started.exists() and read_json(started) == mark:
        return build
    if build.is_symlink() or not started.exists() and build.exists() and _foreign(build):
        raise HandfulError(
            f"{build} holds files that are of no run; move them away or give another --out"
        )
    started.parent.mkdir(parents=True, exist_ok=True)
    write_json(started, "being overwritten")  # first, so that what is left stays a run
    for path in started.parent.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != started:
            path.unlink()
    for name in (Path(layout.record), *layout.files(build)):
        (build / name).unlink(missing_ok=True)
    write_json(started, mark)
    return build


def settle(
    folder: Path, built: Path, layout: Layout = RUN, say: Callable[[str], None] = silent
) -> None:
    """End a run that is whole: it takes its place, and what it no longer needs is removed."""
    clear(built)
    if built != folder:
        mark = read_json(built / layout.record)["fingerprint"]
        take_place(folder, layout, say)
        replaced_before(folder, mark)


@contextmanager
def abandoning(folder: Path | None, mark: str) -> Iterator[None]:
    """Where images vanish within, what was begun in the folder goes: the rest is another run."""
    try:
        yield
    except Vanished:
        for built in [] if folder is None else [folder, folder / NEW]:
            started = built / "checkpoint" / _MARK
            if started.exists() and read_json(started) == mark:
                shutil.rmtree(built / "checkpoint")
        if folder is not None:
            drop_remains(folder)
        raise


@contextmanager
def releasing(work: Path | None) -> Iterator[None]:
    """A refusal within gives the folder back whose checkpoint/ is `work`, if it is still empty.

    So a call with another budget may have it.
    """
    try:
        yield
    except HandfulError:
        if work is not None and work.is_dir() and [p.name for p in work.iterdir()] == [_MARK]:
            shutil.rmtree(work)
            if work.parent.name == NEW:
                drop_remains(work.parent.parent)
        raise


def clear(folder: Path) -> None:
    """Remove what a finished run no longer needs, and what killed processes left half written."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    tidy(folder)


def _foreign(folder: Path) -> bool:
    """Whether the folder holds more than hidden files and an empty checkpoint."""
    for path in folder.rglob("*"):
        within = path.relative_to(folder).parts
        if within[0] != NEW and not path.name.startswith(".") and within != ("checkpoint",):
            return True
    return False


def _refuse_unless(overwrite: bool, what: str) -> None:
    if not overwrite:
        raise HandfulError(
            f"{what} made with other images, settings or seed; give another --out, or --overwrite "
            f"to put this one in its place"
        )


def looked_at(images: ImageSet) -> int:
    """How many images `save_beside` and `save_next` send through the network."""
    unlabeled, labeled = len(images.unlabeled), len(images.labeled)
    return unlabeled + min(unlabeled, POOL) + min(labeled, POOL)


def save_beside(run: Run, task: Task, folder: Path, origin: Sequence[str], track: Track) -> None:
    """labels.csv, what was seen as labelled, and predictions.csv, of all other images."""
    images = task.images
    seen = images[images.labeled]
    names = [images.classes[k] for k in seen.labels]
    rows = zip(seen.names, names, origin, pixel_marks(seen), strict=True)
    write_csv(folder / LABELS, ["file", "label", "origin", "pixels"], map(list, rows))
    if len(images.unlabeled):
        run.predict(images[images.unlabeled], track).to_csv(folder / "predictions.csv")


def save_next(run: Run, task: Task, seed: int, folder: Path, track: Track) -> list[dict[str, str]]:
    """label-next.csv, which images to label next, and familiar.safetensors, what is familiar.

    Returns:
        what the record keeps of the suggestions, so that a later run knows its labels for chosen.
    """
    images, predictor = task.images, run.predictor
    pool, known = (
        images[part[shuffled(len(part), seed)]] for part in (images.unlabeled, images.labeled)
    )
    found, seen = (predictor.features(part, track=track) for part in (pool, known))
    # Labelled images lie unlike others in a network that was trained on them.
    parts = [found] if len(found) >= len(seen) else [found, seen]
    save_in_distribution(
        fit_in_distribution(torch.cat([part for part in parts if len(part)])),
        folder / IN_DISTRIBUTION,
    )
    if not len(pool):
        return []
    probabilities = predictor.of_features(found)
    confidence, guess = (column.tolist() for column in probabilities.max(dim=1))
    suggestions = suggest(found, seen, probabilities, how_many(len(images.labeled), len(pool)))
    names, marks = pool.names, pixel_marks(pool)
    rows = (
        [names[at], "", why, images.classes[guess[at]], f"{confidence[at]:.4f}", str(rank)]
        for rank, (at, why) in enumerate(suggestions, 1)
    )
    header = ["file", "label", "why", "prediction", "confidence", "rank"]
    write_csv(folder / LABEL_NEXT, header, rows)
    return [{"file": names[at], "why": why, "pixels": marks[at]} for at, why in suggestions]


def save_hidden(images: ImageSet, per_class: int, seed: int, folder: Path) -> None:
    """draw.json in the run folder: which images were seen as labelled, with a hash."""
    save_draw(folder / "draw.json", images.labeled.tolist(), per_class, seed, images[:].hash)


def save_issues(issues: Sequence[LabelIssue], images: ImageSet, folder: Path) -> None:
    """label-issues.csv: labelled images that look like another class, the worst first."""
    names = images[images.labeled].names
    rows = (
        [
            names[issue.position],
            images.classes[issue.label],
            images.classes[issue.guess],
            f"{issue.label_probability:.4f}",
            f"{issue.guess_probability:.4f}",
        ]
        for issue in issues
    )
    write_csv(folder / ISSUES, ["file", "label", "guess", "p(label)", "p(guess)"], rows)


def save_out_of_fold(probabilities: np.ndarray, images: ImageSet, folder: Path) -> None:
    """out-of-fold.csv: every labelled image as models that had not seen it predict it.

    Args:
        probabilities: (n, K), at the temperature of the saved model.
    """
    seen = images[images.labeled]
    rows = (
        [
            name,
            images.classes[label],
            images.classes[shares.argmax()],
            *(f"{share:.4f}" for share in shares),
        ]
        for name, label, shares in zip(seen.names, seen.labels, probabilities, strict=True)
    )
    header = ["file", "label", "guess", *(f"p({name})" for name in images.classes)]
    write_csv(folder / OUT_OF_FOLD, header, rows)
