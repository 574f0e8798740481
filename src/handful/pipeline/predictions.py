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
    """Predictions for N images: name, likeliest class and probabilities of all classes."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Tensor  # (N, K)
    threshold: float = 0.0  # images of lower confidence get an empty label
    out_of_distribution: Tensor | None = None  # (N,) bool: out of distribution; None if not tested

    @property
    def labels(self) -> list[str]:
        likeliest = self.probabilities.argmax(dim=1).tolist()
        return [
            self.classes[k] if confidence >= self.threshold and not out_of_distribution else ""
            for k, confidence, out_of_distribution in zip(
                likeliest, self.confidence, self.none_of_these, strict=True
            )
        ]

    @property
    def none_of_these(self) -> list[bool]:
        """Whether each image is out of distribution; False for all if that was not tested."""
        return (
            [False] * len(self.names)
            if self.out_of_distribution is None
            else self.out_of_distribution.tolist()
        )

    @property
    def places(self) -> list[str]:
        """The label of each image, or the reason why it has none."""
        return [
            label or ("none of these" if out_of_distribution else "no answer")
            for label, out_of_distribution in zip(self.labels, self.none_of_these, strict=True)
        ]

    @property
    def confidence(self) -> list[float]:
        return self.probabilities.amax(dim=1).tolist()

    def rows(self) -> Iterator[list[str]]:
        cells: list[list[str]] = [[] for _ in self.names]
        if self.out_of_distribution is not None:
            cells = [
                ["yes" if out_of_distribution else ""] for out_of_distribution in self.none_of_these
            ]
        for name, label, confidence, cell, shares in zip(
            self.names,
            self.labels,
            self.confidence,
            cells,
            self.probabilities.tolist(),
            strict=True,
        ):
            yield [name, label, f"{confidence:.4f}", *cell, *(f"{share:.4f}" for share in shares)]

    def to_csv(self, path: Path | str) -> None:
        """Write a UTF-8 table: file, label, confidence, none_of_these (if tested), p(class)..."""
        marked = [] if self.out_of_distribution is None else ["none_of_these"]
        shares = (f"p({name})" for name in self.classes)
        header = ["file", "label", "confidence", *marked, *shares]
        with written(Path(path)) as whole:
            write_csv(whole, header, self.rows())

    def into_folders(
        self, source: Path | str, target: Path | str, dry_run: bool = False, track: Track = quiet
    ) -> Sorted:
        """Copy every file of `source` into a sub-folder of `target` named after its class.

        Originals and files of the user are not changed. Copies of an earlier call are moved where
        their class has changed. With `dry_run` nothing is written.
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
