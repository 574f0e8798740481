"""Predictions for new images, and their CSV file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from handful.csv_files import write_csv
from handful.output import written
from handful.pipeline.sorting import Sorted, sort_into_folders
from handful.progress import Track, quiet


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
        with written(Path(path)) as whole:
            write_csv(whole, header, self.rows())

    def into_folders(
        self, source: Path | str, target: Path | str, dry_run: bool = False, track: Track = quiet
    ) -> Sorted:
        """Copy every file of `source` into a sub-folder of `target` named after its class.

        No original and no file of yours is changed; copies of an earlier call whose class is
        another now are moved. With `dry_run`, only what would be done is found out.
        """
        return sort_into_folders(
            Path(source),
            Path(target),
            self.names,
            self.labels,
            self.none_of_these,
            self.classes,
            dry_run,
            track,
        )
