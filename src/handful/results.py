"""Run: the folder that a fit leaves. JSON, CSV and safetensors, written whole or not at all.

`run.json` is written last: a folder without it holds an unfinished run, or none.
"""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import handful
from handful import backbones
from handful.data.imageset import ImageSet, Track, quiet
from handful.data.values import FULL, ValueRange
from handful.errors import HandfulError
from handful.evaluate import Evaluation, evaluate, plot_confusion
from handful.files import beside, read_json, read_tensors, write_json, write_tensors, write_text
from handful.methods.base import BackboneSpec, Classifier, Normalize, Predictor
from handful.methods.mlp_head import make_head
from handful.novelty import Familiar, load_familiar

MODEL, RECORD = "model.safetensors", "run.json"
LABELS, ISSUES = "labels.csv", "label-issues.csv"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell starts with that a spreadsheet runs
OUT_OF_FOLD, REPORT = "out-of-fold.csv", "report.html"
LABEL_NEXT, FAMILIAR = "label-next.csv", "familiar.safetensors"
HISTORY, STAGE_HISTORY = "history.jsonl", "stage-history.jsonl"


@dataclass(eq=False)
class Run:
    """A trained classifier, what is known of it, and the folder where both are kept."""

    record: dict[str, Any]  # what run.json holds; the keys are in docs/design.md
    predictor: Predictor
    folder: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.predictor.classes

    @property
    def estimate(self) -> Any:
        """Accuracy on new images as the labelled ones tell it: a dict with accuracy, low, high,
        level and how; None if it was not asked for."""
        return self.record["estimate"]

    @property
    def test(self) -> Any:
        """Accuracy on the test part: a dict with accuracy, low, high and n; None if not scored."""
        return self.record["test"]

    def predict(
        self,
        images: ImageSet,
        track: Track = quiet,
        abstain: float | None = None,
        none_of_these: bool = False,
    ) -> "Predictions":
        """Classify images of any size and colour, a test part after the others.

        They stream through in batches.

        Args:
            abstain: how often answers are to be right, such as 0.95; images for which that cannot
                be promised get no label.
            none_of_these: look for images unlike any that the run has seen; they get no label
                either. Of images like those it has seen about 2 % are taken for such.
        """
        least = 0.0 if abstain is None else self.answering(abstain)["threshold"]
        parts = [images] if images.test is None else [images, images.test]
        names = tuple(name for part in parts for name in part.names)
        found = [self.predictor.predict_proba(part, track=track) for part in parts]
        strange = None
        if none_of_these:
            known = self.familiar
            strange = torch.cat(
                [known.strange(self.predictor.features(part, track=track)) for part in parts]
            )
        return Predictions(names, self.classes, torch.cat(found), least, strange)

    @property
    def familiar(self) -> Familiar:
        """What this run has seen; HandfulError for a run without a folder."""
        if self.folder is None:
            raise HandfulError(
                "what is none of these is told by a file in the folder of the run; fit with out"
            )
        return load_familiar(self.folder / FAMILIAR)

    def answering(self, sure: float) -> dict[str, float]:
        """The confidence to answer from so that answers are right at least `sure` of the time.

        Keys sure, threshold, share (of new images that are answered) and accuracy (of the answers,
        out of fold). HandfulError if the labels of this run do not support such a promise.
        """
        if not 0 < sure < 1:
            raise HandfulError(
                f"abstain is how often answers are to be right, got {sure}; try 0.95"
            )
        if self.estimate is None:
            raise HandfulError(
                "this run has no estimate, so how sure its answers are is not known; fit again "
                "with --estimate folds"
            )
        known: list[dict[str, float]] = self.estimate["abstentions"]
        enough = [row for row in known if row["sure"] >= sure]
        if not enough:
            most = max((row["sure"] for row in known), default=None)
            instead = f"ask for {most} at most" if most else "predict without --abstain"
            raise HandfulError(
                f"the labels of this run cannot promise answers that are right {sure:.0%} of the "
                f"time; {instead}, or label more images"
            )
        return min(enough, key=lambda row: row["sure"])

    def evaluate(self, images: ImageSet, track: Track = quiet) -> Evaluation:
        """Score the labelled ones among `images`, matched to this run's classes by name."""
        labeled = images[images.labeled].relabeled(self.classes)
        if not len(labeled):
            raise HandfulError(
                f"{images.source} holds no labelled image to score; put images into class "
                f"sub-folders or give their labels with --labels"
            )
        probabilities = self.predictor.predict_proba(labeled, track=track)
        return evaluate(probabilities.numpy(), labeled.labels, self.classes)

    def trained_on(self, images: ImageSet) -> int:
        """How many of the labelled `images` have the pixels of an image this run learned from."""
        if self.folder is None or not (self.folder / LABELS).exists():
            return 0
        known = {row.get("pixels") for row in read_csv(self.folder / LABELS)}
        return sum(mark in known for mark in pixel_marks(images[images.labeled]))

    def score_test(self, test: ImageSet, track: Track = quiet) -> Evaluation:
        """Evaluate on the sealed test part and write the outcome into the record."""
        evaluation = self.evaluate(test, track)
        keys = ("accuracy", "low", "high", "level", "n", "balanced_accuracy", "macro_f1")
        found = evaluation.as_json()
        self.record["test"] = {key: found[key] for key in keys}
        if self.folder is not None:
            write_json(self.folder / "test.json", found)
            with beside(self.folder / "confusion.svg") as path:
                plot_confusion(evaluation, path)
            write_json(self.folder / RECORD, self.record)
        return evaluation

    def save(self, folder: Path | str, history: Iterable[dict[str, float]] = ()) -> None:
        """Write the model, the history and, last, the record."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        save_predictor(self.predictor, self.folder / MODEL)
        write_text(self.folder / "history.jsonl", "".join(json.dumps(h) + "\n" for h in history))
        write_json(self.folder / RECORD, self.record)


@dataclass(frozen=True, eq=False)
class Predictions:
    """One row an image: its name, the likeliest class and the probability of every class."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Tensor  # (N, K)
    threshold: float = 0.0  # the label is left empty where the confidence is lower
    strange: Tensor | None = None  # (N,) bool: unlike anything seen; None if not looked for

    @property
    def labels(self) -> list[str]:
        guesses = self.probabilities.argmax(dim=1).tolist()
        return [
            self.classes[k] if confidence >= self.threshold and not strange else ""
            for k, confidence, strange in zip(
                guesses, self.confidence, self.none_of_these, strict=True
            )
        ]

    @property
    def none_of_these(self) -> list[bool]:
        """Whether an image is unlike any that the run has seen; never, if that was not asked."""
        return [False] * len(self.names) if self.strange is None else self.strange.tolist()

    @property
    def places(self) -> list[str]:
        """Where an image belongs: its label, or why it has none."""
        return [
            label or ("none of these" if strange else "no answer")
            for label, strange in zip(self.labels, self.none_of_these, strict=True)
        ]

    @property
    def confidence(self) -> list[float]:
        return self.probabilities.amax(dim=1).tolist()

    def rows(self) -> Iterator[list[str]]:
        marks: list[list[str]] = [[] for _ in self.names]
        if self.strange is not None:
            marks = [["yes" if strange else ""] for strange in self.none_of_these]
        for name, label, confidence, mark, shares in zip(
            self.names,
            self.labels,
            self.confidence,
            marks,
            self.probabilities.tolist(),
            strict=True,
        ):
            yield [name, label, f"{confidence:.4f}", *mark, *(f"{share:.4f}" for share in shares)]

    def to_csv(self, path: Path | str) -> None:
        """Columns file, label, confidence, none_of_these if asked for, p(class)... UTF-8."""
        marked = [] if self.strange is None else ["none_of_these"]
        shares = (f"p({name})" for name in self.classes)
        header = ["file", "label", "confidence", *marked, *shares]
        write_csv(Path(path), header, self.rows())

    def into_folders(self, source: Path, target: Path) -> None:
        """Copy every file of `source` into a sub-folder of `target` named after its class."""
        taken: set[Path] = set()
        for name, label in zip(self.names, self.places, strict=True):
            folder = _folder_name(label)
            place = _free(target / folder / name.replace("/", "_"), taken)
            taken.add(place)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name if source.is_dir() else source, place)


def pixel_marks(images: ImageSet) -> list[str]:
    """A hash of the pixels of every image, as text."""
    return [mark.tobytes().hex() for mark in images.store.fingerprints[images.rows]]


def write_csv(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    """UTF-8, but for names of files that are not: those keep their bytes.

    The first column holds names of files. One that a spreadsheet would run as a formula is written
    as the same path with ./ before it; `read_csv` and label files take that for the same file.
    """
    with beside(path) as temporary:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows([_no_formula(name), *rest] for name, *rest in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """What `write_csv` wrote, row by row; HandfulError if it is damaged."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row | {"file": row["file"].removeprefix("./")} for row in rows]
    except (KeyError, AttributeError, csv.Error) as error:
        raise HandfulError(f"{path} is damaged ({error!r}); restore it or fit again") from None


def _no_formula(name: str) -> str:
    return f"./{name}" if name.startswith(FORMULA) else name


def save_predictor(predictor: Predictor, path: Path) -> None:
    """Weights, and in the file's header all that is needed to build the network around them."""
    described = {
        "backbone": asdict(predictor.backbone),
        "classes": predictor.classes,
        "size": predictor.size,
        "channels": predictor.channels,
        "fit": predictor.fit,
        "precision": predictor.precision,
        "temperature": predictor.temperature,
        "frozen": predictor.frozen,
        "value_range": predictor.value_range,
    }
    metadata = {"handful": handful.__version__, "predictor": json.dumps(described)}
    write_tensors(path, predictor.model.state_dict(), metadata)


def load_predictor(path: Path) -> Predictor:
    """The predictor in a file written by `save_predictor`; HandfulError for any other file."""
    tensors, metadata = read_tensors(path)
    if "predictor" not in metadata:
        raise HandfulError(
            f"{path} was not written by handful; give the folder that `handful fit` left"
        )
    try:
        described = json.loads(metadata["predictor"])
        spec = BackboneSpec(**described.pop("backbone"))
        classes = tuple(described.pop("classes"))
        options = spec.options | ({"pretrained": False} if backbones.pretrained(spec.name) else {})
        # Runs of before the range was looked at scaled by the type.
        scale = described.pop("value_range", FULL)
        scale = (
            None if scale is None else ValueRange(float(scale[0]), float(scale[1]), bool(scale[2]))
        )
        channels, size = int(described["channels"]), int(described["size"])
        with torch.device("meta"):  # shapes only: a header cannot ask for more than the file holds
            backbone = backbones.make(spec.name, channels, size, **options)
            constants = [0.0] * tensors["normalize.mean"].numel()
            model = Classifier(backbone, len(classes), Normalize(constants, constants))
            if "head.0.weight" in tensors:  # of two layers
                hidden, width = tensors["head.0.weight"].shape
                model.head = make_head(width, hidden, len(classes))
        model.load_state_dict(tensors, assign=True)
        return Predictor(model.eval(), spec, classes, value_range=scale, **described)
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        first = str(error).splitlines()[0]
        raise HandfulError(
            f"{path} does not hold the network it describes ({first}); restore it or fit again"
        ) from None


def open_run(folder: Path | str) -> Run:
    """The run in a folder; HandfulError says which file is missing, damaged or foreign."""
    folder = Path(folder)
    if not folder.is_dir():
        raise HandfulError(
            f"{folder} is not a folder; give the folder that `handful fit --out` left"
        )
    if not (folder / RECORD).exists() and (folder / "checkpoint").is_dir():
        raise HandfulError(
            f"{folder} holds an unfinished run; start the same fit again to finish it"
        )
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or not {"data", "method", "estimate", "test"} <= record.keys():
        raise HandfulError(
            f"{folder / RECORD} was not written by handful; is {folder} a run folder?"
        )
    predictor = load_predictor(folder / MODEL)
    expected = record.get("backbone", {}).get("weights")
    if expected not in (None, backbones.fingerprint(predictor.model.backbone)):
        raise HandfulError(
            f"the network in {folder / MODEL} is not the one that this run was trained with: its "
            f"weights differ from those that {RECORD} names; restore the file or fit again"
        )
    return Run(record, predictor, folder)


def _free(place: Path, taken: set[Path]) -> Path:
    """`place`, or with a number where a file of another sub-folder has the same name already."""
    number, free = 1, place
    while free in taken:
        number += 1
        free = place.with_name(f"{place.stem} ({number}){place.suffix}")
    return free


def _folder_name(label: str) -> str:
    """A class name as one folder: never out of the target, whatever the class is called."""
    safe = "".join("_" if c in '/\\:*?"<>|' or ord(c) < 32 else c for c in label).strip(" .")
    return safe or "_"
