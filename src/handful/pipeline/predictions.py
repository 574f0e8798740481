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
    out_of_distribution: Tensor | None = None  # (N,) bool; None if it was not asked for

    @property
    def labels(self) -> list[str]:
        guesses = self.probabilities.argmax(dim=1).tolist()
        return [
            self.classes[k] if confidence >= self.threshold and not none else ""
            for k, confidence, none in zip(
                guesses, self.confidence, self.none_of_these, strict=True
            )
        ]

    @property
    def none_of_these(self) -> list[bool]:
        """Whether an image is unlike any that the run has seen; never, if that was not asked."""
        return (
            [False] * len(self.names)
            if self.out_of_distribution is None
            else self.out_of_distribution.tolist()
        )

    @property
    def places(self) -> list[str]:
        """Where an image belongs: its label, or why it has none."""
        return [
            label or ("none of these" if none else "no answer")
            for label, none in zip(self.labels, self.none_of_these, strict=True)
        ]

    @property
    def confidence(self) -> list[float]:
        return self.probabilities.amax(dim=1).tolist()

    def rows(self) -> Iterator[list[str]]:
        none_cells: list[list[str]] = [[] for _ in self.names]
        if self.out_of_distribution is not None:
            none_cells = [["yes" if none else ""] for none in self.none_of_these]
        for name, label, confidence, none_cell, shares in zip(
            self.names,
            self.labels,
            self.confidence,
            none_cells,
            self.probabilities.tolist(),
            strict=True,
        ):
            yield [
                name,
                label,
                f"{confidence:.4f}",
                *none_cell,
                *(f"{share:.4f}" for share in shares),
            ]

    def to_csv(self, path: Path | str) -> None:
        """Columns file, label, confidence, none_of_these if asked for, p(class)... UTF-8."""
        none_column = [] if self.out_of_distribution is None else ["none_of_these"]
        shares = (f"p({name})" for name in self.classes)
        header = ["file", "label", "confidence", *none_column, *shares]
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
