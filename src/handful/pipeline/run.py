"""Run: a trained classifier and its record; opens, saves and scores run folders.

Files are written whole or not at all. `run.json` is written last: a folder without it holds an
unfinished run, or none.
"""

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handful import models
from handful.csv_files import read_csv
from handful.data.boxes.crop_store import CropStore, boxes_in
from handful.data.boxes.options import Boxes, boxes_of, photo_of
from handful.data.imageset import ImageSet
from handful.data.vanished import with_the_rest
from handful.errors import HandfulError
from handful.evaluation.calibration import fewest_labels
from handful.evaluation.metrics import Evaluation, evaluate, with_foreign
from handful.evaluation.novelty import FEWEST, InDistribution, load_in_distribution
from handful.evaluation.plots import plot_confusion
from handful.files import beside, read_json, sole_writer, write_json, write_text
from handful.models.classifier import Predictor
from handful.pipeline.artifacts import (
    HISTORY,
    IN_DISTRIBUTION,
    LABELS,
    MODEL,
    RECORD,
    RUN_LAYOUT,
)
from handful.pipeline.given import images_of, labeled_images
from handful.pipeline.model_file import load_predictor, save_predictor
from handful.pipeline.pool_images import in_pool
from handful.pipeline.predictions import Predictions
from handful.pipeline.record_schema import RunRecord, parsed
from handful.pipeline.replacement import finish_replacement
from handful.progress import Important, Say, Track, quiet, warned
from handful.text import (
    GUESSES,
    NO_FIGURE,
    about_right,
    as_html_table,
    counted,
    for_terminal,
    may_guess,
    not_promised,
    promise_in_words,
    promise_of,
    promises,
    some_names,
    why_no_promise,
    withheld,
)

LISTED = 12  # classes in a notebook
NAMED = 5  # classes in a message


@dataclass(eq=False, repr=False)
class Run:
    """A trained classifier with its record, and the folder where both are saved.

    >>> images = handful.load("digits").seen(range(60))  # 60 labels; the others are hidden
    >>> run = handful.fit(images, "supervised", settings={"steps": 5}, estimate="none")
    >>> run
    Run: 10 classes from 60 labels, by supervised; accuracy not estimated
    >>> len(run.classes)
    10

    `classes` are the names of the classes; `estimate` and `test` are dicts with accuracy, low and
    high in [0, 1]; `record` is the content of run.json.
    """

    record: dict[str, Any]  # content of run.json; docs/design.md lists the keys
    predictor: Predictor
    folder: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of probabilities."""
        return self.predictor.classes

    @property
    def estimate(self) -> Any:
        """Estimated accuracy on new images: a dict with accuracy, low, high (in [0, 1]), level
        and how; None with `estimate="none"`."""
        return self.record["estimate"]

    @property
    def test(self) -> Any:
        """Accuracy on the test part: a dict with accuracy, low, high (in [0, 1]) and n; None if
        not scored."""
        return self.record["test"]

    def __repr__(self) -> str:
        data = self.record["data"]
        right = "accuracy not estimated" if self.estimate is None else about_right(self.estimate)
        saved = "" if self.folder is None else f"; in {self.folder}"
        return for_terminal(
            f"Run: {len(self.classes)} classes from {counted(data['labeled'], 'label')}, by "
            f"{self.record['method']['name']}; {right}{saved}"
        )

    def _repr_html_(self) -> str:
        data = self.record["data"]
        rows = [
            ["classes", some_names(self.classes, LISTED)],
            ["images", f"{data['labeled']:,} labelled, {data['unlabeled']:,} not"],
            ["method", self.record["method"]["name"]],
            ["right on new images", about_right(self.estimate) if self.estimate else "not known"],
            ["folder", "not saved" if self.folder is None else str(self.folder)],
        ]
        return as_html_table(repr(self), [], rows)

    def predict(
        self,
        images: Any,
        track: Track = quiet,
        abstain: float | None = None,
        none_of_these: bool = False,
        say: Say = warned,
        boxes: Any = None,
    ) -> "Predictions":
        """Classify images of any size and colour, in batches; a test part comes last.

        >>> run.predict(images[:2]).names
        ('train/00000', 'train/00001')
        >>> len(run.predict(digits.images[:5] / 16)), len(run.predict(digits.images[0] / 16))
        (5, 1)

        Args:
            images: what `load` takes: a path, a picture, an array, a list of these, a data set; or
                what it returned. The predictions are in the order of a list.
            abstain: target accuracy of the answers in (0, 1), such as 0.95. Images whose
                confidence is too low for it get no label.
            none_of_these: detect out-of-distribution images, which get no label either;
                `mistaken_for_none` says how many in-distribution images are taken for such.
            say: gets a line for each image that vanishes meanwhile; it is added to
                `images.store.skipped` too.
            boxes: as in `load`: the crops of a folder of photos are classified, cut as those of
                this run; `by_photo` of the result has the answers for photos.

        Raises:
            HandfulError: the labels of the run do not support `abstain`, or `none_of_these` is
                set and the run has no folder.
        """
        least = 0.0 if abstain is None else self.answering(abstain)["threshold"]
        given = images_of(images, self.record["input"]["channels"], self.cut_alike(boxes))
        self._check_cut(given, say)
        return with_the_rest(
            given, lambda rest: self._predict(rest, track, least, none_of_these), say
        )

    def cut_alike(self, boxes: Any) -> Boxes | None:
        """Boxes as `load` takes them, cut as those of this run where nothing else is asked for.

        >>> run.cut_alike("boxes.csv")
        Boxes(file='boxes.csv', min_confidence=None, padding=None, square=None)
        """
        given = boxes_of(boxes)
        return given and given.as_in(self.record["data"].get("boxes"))

    def _check_cut(self, images: ImageSet, say: Say) -> None:
        """Say where a run of crops gets whole images, or the other way round."""
        learned, given = self.record["data"].get("boxes"), boxes_in(images)
        if learned is not None and given is None:
            say(
                Important(
                    "this run learned from crops, and these are whole images: its estimate is not "
                    "for them; give their --boxes"
                )
            )
        elif learned is None and given is not None:
            say(
                Important(
                    "this run learned from whole images, and these are crops: its estimate is not "
                    "for them; fit with --boxes"
                )
            )

    def _predict(
        self, images: ImageSet, track: Track, least: float, none_of_these: bool
    ) -> "Predictions":
        parts = [images] if images.test is None else [images, images.test]
        names = tuple(name for part in parts for name in part.names)
        found = [self._probabilities(part, track) for part in parts]
        out_of_distribution = None
        if none_of_these:
            known = self.in_distribution
            out_of_distribution = torch.cat(
                [
                    known.out_of_distribution(found)
                    for part in parts
                    for found in self.predictor.feature_parts(part, track=track)
                ]
            )
        store = images.store
        detected = store.detected if isinstance(store, CropStore) else None
        return Predictions(
            names,
            self.classes,
            torch.cat(found),
            least,
            out_of_distribution,
            detected,
            Path(store.source) if store.in_folder else None,
        )

    def _probabilities(self, images: ImageSet, track: Track) -> Tensor:
        """(N, K) calibrated probabilities; see `pool_answers` for images that the head knows."""
        of_pool = (self.estimate or {}).get("pool_temperature")
        if of_pool is None or self.folder is None:
            return self.predictor.predict_proba(images, track=track)
        own = in_pool(images.scaled_by(self.predictor.value_range), self.folder)
        found = torch.empty(len(images), len(self.classes))
        for these, temperature in ((own, of_pool), (~own, self.predictor.temperature)):
            if these.any():
                predictor = replace(self.predictor, temperature=temperature)
                found[these] = predictor.predict_proba(images[these], track=track)
        return found

    @property
    def in_distribution(self) -> InDistribution:
        """Features of the images that this run has seen; HandfulError without a folder."""
        if self.folder is None:
            raise HandfulError(
                "--none-of-these needs a run that was saved to a folder; fit with out=..."
            )
        width = int(self.predictor.model.backbone.width)  # type: ignore[arg-type]
        return load_in_distribution(self.folder / IN_DISTRIBUTION, width)

    def known(self) -> InDistribution | None:
        """`in_distribution`, or None where the run has none, or saw too few images to use it.

        >>> run.known() is None
        True
        """
        if self.folder is None or not (self.folder / IN_DISTRIBUTION).exists():
            return None
        found = self.in_distribution
        return found if float(found.flagged) > 0 else None

    def to_onnx(self, path: Path | str | None = None) -> bytes:
        """The ONNX model of this run: uint8 images in, calibrated probabilities out.

        `handful export` checks the model, and adds what loads pictures as in training.

        Args:
            path: file to write it to, too.

        >>> content = run.to_onnx("model.onnx")
        >>> len(content) > 10_000
        True
        """
        from handful.pipeline.onnx_model import onnx_model

        content = onnx_model(self.record, self.predictor, self.known())
        if path is not None:
            with beside(Path(path)) as temporary:
                temporary.write_bytes(content)
        return content

    @property
    def mistaken_for_none(self) -> str:
        """A sentence: which share of images like the run's own `none_of_these` marks, too.

        HandfulError without a folder.
        """
        flagged = float(self.in_distribution.flagged)
        if not flagged:
            return (
                f"this run has seen fewer than {FEWEST} images, too few to tell which images are "
                f"unlike them, so none is marked; fit again with more images, labelled or not"
            )
        share = f"{_rounded_up(flagged)} % of images like those that this run has seen"
        learned = self.record.get("init") or self.record.get("stage")
        if not learned and not self.predictor.learned_from_images:
            return f"at most {share} are marked as none of these, too, in the mean over such runs"
        return (
            f"about {share} are marked as none of these, too; there may be more, since the network "
            f"has learned from some of these images"
        )

    def answering(self, target_accuracy: float) -> dict[str, Any]:
        """Return the confidence threshold above which answers reach `target_accuracy`.

        >>> run = handful.open_run("photos-run")
        >>> run.answering(0.9)
        Traceback (most recent call last):
        ...
        handful.errors.HandfulError: this run has no estimate, so the accuracy of its answers is ...

        Returns:
            sure (the next supported target: at least this share of the answers is right), held
            (the share of label sets for which that is so; None in runs of earlier versions, where
            it is so for about half), threshold, share (of new images that are answered) and
            accuracy (of the answers, out of fold).

        Raises:
            HandfulError: the run has no estimate, or too few labels for this target.
        """
        if not isinstance(target_accuracy, Real) or not 0 < target_accuracy < 1:
            raise HandfulError(
                f"abstain is how often answers are to be right, a number between 0 and 1, got "
                f"{target_accuracy!r}; try 0.95"
            )
        if self.estimate is None:
            raise HandfulError(
                "this run has no estimate, so the accuracy of its answers is not known; fit again "
                "with --estimate folds"
            )
        known = promises(self.estimate)
        found = promise_of(known, target_accuracy)
        if found is None:
            refused = not_promised(known, target_accuracy, "predict without --abstain")
            raise HandfulError(f"{refused}: {self._needed(target_accuracy)}")
        return dict(found)

    def _needed(self, target_accuracy: float) -> str:
        """Return in words what labels would have to show for a promise to be possible."""
        if withheld(self.estimate) in NO_FIGURE:
            return why_no_promise(self.estimate)
        fewest = fewest_labels(target_accuracy)
        if self.estimate.get("n", 0) < fewest:
            return f"it takes at least {fewest} labels that count, all of them predicted rightly"
        return (
            "it takes more labels that count, or a model whose surest answers are right more often"
        )

    def evaluate(
        self,
        images: Any,
        labels: Any = None,
        *,
        boxes: Any = None,
        track: Track = quiet,
        say: Say = warned,
    ) -> Evaluation:
        """Score the labelled images, matched to the classes of this run by name.

        Images of unknown classes are left out of the figures and counted in `foreign`.

        >>> found = run.evaluate(images.test)
        >>> found.n, 0 <= found.accuracy <= 1
        (359, True)
        >>> run.evaluate(digits.images[:50] / 16, [str(one) for one in digits.target[:50]]).n
        50

        Args:
            images: what `load` takes: a path, pictures, an array, a data set; or what it returned.
            labels: of these images, as `load` takes them; None where they have labels already.
            boxes: as in `predict`: the crops of a folder of photos are scored.
            say: gets a line where whole images are scored by a run of crops, or crops by one of
                whole images.

        Raises:
            HandfulError: there is no labelled image, or none of a known class.
        """
        channels = self.record["input"]["channels"]
        scored = labeled_images(images, labels, channels, self.cut_alike(boxes))
        self._check_cut(scored, say)
        if known := self.trained_on(scored):
            told = (
                f"{known} of these images are among those the run was trained on: "
                f"their accuracy says nothing about new images"
            )
            say(Important(told))
        return with_the_rest(scored[scored.labeled], lambda rest: self._evaluate(rest, track))

    def _evaluate(self, images: ImageSet, track: Track) -> Evaluation:
        labeled, foreign = images.known_to(self.classes)
        if foreign and not len(labeled):
            others, known = some_names(foreign, NAMED), some_names(self.classes, NAMED)
            raise HandfulError(
                f"the classes of {images.source} ({others}) are not among the "
                f"{len(self.classes)} known classes: {known}; name them alike"
            )
        if not len(labeled):
            raise HandfulError(
                f"{images.source} holds no labelled image to score; put images into class "
                f"sub-folders or give their labels with --labels"
            )
        probabilities = self._probabilities(labeled, track)
        found = evaluate(probabilities.numpy(), labeled.labels, self.classes)
        return with_foreign(found, foreign)

    def trained_on(self, images: ImageSet) -> int:
        """Return how many labelled images have the pixels of a training image of this run.

        >>> handful.open_run("photos-run").trained_on(handful.load("photos-by-class"))
        2
        """
        if self.folder is None or not (self.folder / LABELS).exists():
            return 0
        known = {row.get("pixels") for row in read_csv(self.folder / LABELS)}
        return sum(mark in known for mark in pixel_fingerprints(images[images.labeled]))

    @property
    def source_folder(self) -> Path | None:
        """The folder of the images that the run learned from, if they are still there.

        The record has the path as it was typed, so the folder counts only while it holds the first
        of the labelled images.
        """
        folder = Path(self.record["data"]["source"]).expanduser()
        if self.folder is None or not (self.folder / LABELS).exists():
            return None
        first = next((row.get("file", "") for row in read_csv(self.folder / LABELS)), "")
        first = photo_of(first) if self.record["data"].get("boxes") else first
        return folder if first and (folder / first).is_file() else None

    def score_test(self, test: ImageSet, track: Track = quiet) -> Evaluation:
        """Evaluate on the sealed test part and write the outcome into the record.

        >>> run.score_test(images.test).n
        359
        >>> sorted(run.test)[:3]
        ['accuracy', 'balanced_accuracy', 'high']
        """
        evaluation = self.evaluate(test, track=track)
        keys = ("accuracy", "low", "high", "level", "n", "balanced_accuracy", "macro_f1")
        found = evaluation.as_json()
        self.record["test"] = {key: found[key] for key in keys}
        if self.folder is not None:
            write_json(self.folder / "test.json", found)
            with beside(self.folder / "confusion.svg") as path:
                plot_confusion(evaluation, path)
            write_json(self.folder / RECORD, self.record)
        return evaluation

    def save(self, folder: Path | str, *, overwrite: bool = False, say: Say = warned) -> None:
        """Save the run: all files of its own folder, where it has one, else model and record.

        A run without a folder has `folder` as its own afterwards; any other keeps its own. Saved
        into its own folder, model and record are written again, and all else stays.

        >>> handful.open_run("photos-run").save("copied-run")
        >>> handful.open_run("copied-run").classes
        ('fox', 'hare')

        Args:
            folder: new or empty. Where it holds this very run, nothing is written.
            overwrite: replace another run in `folder`; other files there stay.
            say: gets a sentence on what is lacking where the run has no folder, and on tables with
                typed labels that are kept.

        Raises:
            HandfulError: `folder` holds other files, or another run and `overwrite` is off.
        """
        from handful.pipeline.run_folder import acquire, finish, refuse_unless_overwrite

        folder, own = Path(folder), self._own_folder()
        with sole_writer(folder):
            if own is not None and own.samefile(folder):
                write_run(self, own)
                return
            built = acquire(folder, self.record["fingerprint"], overwrite, say=say)
            if built is None:
                if not _equal_weights(load_predictor(folder / MODEL), self.predictor):
                    refuse_unless_overwrite(False, folder, "finished")
            elif own is None:
                write_run(self, built)
                finish(folder, built, say=say)
                told = (
                    f"{folder} has the model and the record alone, as this run has no folder of "
                    f"its own: --after and none_of_these do not take it; fit with out=... for a "
                    f"whole run"
                )
                say(Important(told))
            else:
                for name in RUN_LAYOUT.files(own):
                    if (own / name).is_file():
                        shutil.copy2(own / name, built / name)
                write_run(self, built)
                # Whether a table was changed since is told by the times of both.
                shutil.copystat(own / RECORD, built / RECORD)
                finish(folder, built, say=say)
        if own is None:
            self.folder = folder

    def report(self, out: Path | str | None = None, pictures: bool = True) -> Path:
        """Write the report of a saved run as one HTML file, and return its path.

        `handful fit` leaves it in the run's folder; `handful.fit` leaves it to this method.

        >>> handful.open_run("photos-run").report().name
        'report.html'

        Args:
            out: by default report.html in the run's folder.
            pictures: include thumbnails of images. False for private photos.

        Raises:
            HandfulError: the run is in no folder; or `out` is a file that handful did not write.
        """
        if self.folder is None:
            raise HandfulError(
                "the report is made from the files of a run's folder, and this run has none; fit "
                "with out=..., or call run.save(folder) first"
            )
        # By name: this package must not import one above it.
        path: Path = import_module("handful.report").make_report([self.folder], out, pictures)
        return path

    def _own_folder(self) -> Path | None:
        """The folder of this run, while it holds this run and no other."""
        if self.folder is None or not (self.folder / RECORD).is_file():
            return None
        same = read_record(self.folder)["fingerprint"] == self.record["fingerprint"]
        return self.folder if same else None


def write_run(run: Run, folder: Path, history: Iterable[dict[str, float]] | None = None) -> None:
    """Write the model, the history if there is one and, last, the record."""
    save_predictor(run.predictor, folder / MODEL)
    if history is not None:
        write_text(folder / HISTORY, "".join(json.dumps(h) + "\n" for h in history))
    write_json(folder / RECORD, run.record)


def _equal_weights(one: Predictor, other: Predictor) -> bool:
    first, second = one.model.state_dict(), other.model.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name].cpu()) for name in first
    )


def _rounded_up(share: float) -> str:
    """Return a share in per cent with one decimal at most, never less than it is."""
    return f"{math.ceil(round(1000 * share, 3)) / 10:g}"


def pixel_fingerprints(images: ImageSet) -> list[str]:
    """Return a hash of the pixels of every image, as hexadecimal text."""
    return [mark.tobytes().hex() for mark in images.store.fingerprints[images.rows]]


def read_record(folder: Path) -> dict[str, Any]:
    """Read and check run.json; keys that earlier versions did not write get defaults."""
    path = folder / RECORD
    return parsed(RunRecord, read_json(path), path)


def about_answers(run: Run, abstain: float | None, none_of_these: bool) -> list[str]:
    """What a user should know of the answers of a run before reading them, in sentences.

    Args:
        abstain, none_of_these: as in `Run.predict`, which raises the same errors.
    """
    said = [GUESSES] if may_guess(run.estimate) else []
    if abstain is not None:
        said.append(promise_in_words(run.answering(abstain)))
    return [*said, run.mistaken_for_none] if none_of_these else said


def open_run(folder: Path | str) -> Run:
    """Open the run in a folder; HandfulError if a file is missing, damaged or of another run.

    >>> handful.open_run("photos-run").classes
    ('fox', 'hare')
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HandfulError(
            f"{folder} is not a folder; give the folder that `handful fit --out` left"
        )

    finish_replacement(folder, RUN_LAYOUT)
    if not (folder / RECORD).exists() and (folder / "checkpoint").is_dir():
        raise HandfulError(
            f"{folder} holds an unfinished run; start the same fit again to finish it"
        )
    record = read_record(folder)
    predictor = load_predictor(folder / MODEL)
    if list(predictor.classes) != record["data"]["classes"]:
        raise HandfulError(
            f"{folder / RECORD} and {folder / MODEL} name other classes, so they are not of one "
            f"run; restore both or fit again"
        )
    expected = record.get("backbone", {}).get("weights")
    if expected not in (None, models.fingerprint(predictor.model.backbone)):
        raise HandfulError(
            f"the network in {folder / MODEL} is not the one that this run was trained with: its "
            f"weights differ from those that {RECORD} names; restore the file or fit again"
        )
    return Run(record, predictor, folder)
