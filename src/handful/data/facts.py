"""Facts of many images as arrays: a hundred bytes an image, where objects take a thousand.

Letters in shapes: N images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np

from handful.data.decode import Facts
from handful.data.decoding.value_range import Values

EIGHT_BITS = (np.nan, np.nan, np.nan)  # `values` of an image that has no range


@dataclass(frozen=True, eq=False)
class FactsTable:
    """`Facts` of N images, one row each."""

    sizes: np.ndarray  # (N, 2) int64, height and width
    grey: np.ndarray  # (N,) bool
    blank: np.ndarray  # (N,) bool
    fingerprints: np.ndarray  # (N, 16) uint8
    values: np.ndarray  # (N, 3) float64 as in `Values`; NaN for images of 8 bits
    notes: np.ndarray  # (N,) int64, which of `treatments` a file needed
    treatments: tuple[tuple[str, ...], ...]  # all different

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Facts]:
        return map(self.row, range(len(self)))

    def row(self, at: int) -> Facts:
        """The facts of one image."""
        height, width = self.sizes[at].tolist()
        low, high, real = self.values[at].tolist()
        return Facts(
            height,
            width,
            bool(self.grey[at]),
            self.fingerprints[at].tobytes(),
            self.treatments[int(self.notes[at])],
            Values(low, high, bool(real)) if self.deep[at] else None,
            bool(self.blank[at]),
        )

    @property
    def deep(self) -> np.ndarray:
        """(N,) bool: images of more than 8 bits."""
        return ~np.isnan(self.values[:, 0])

    @property
    def ranges(self) -> list[Values]:
        """The ranges of the images of more than 8 bits."""
        rows = self.values[self.deep].tolist()
        return [Values(low, high, bool(real)) for low, high, real in rows]

    def take(self, rows: np.ndarray) -> "FactsTable":
        """The table of these rows."""
        arrays = {name: getattr(self, name)[rows] for name in ARRAYS}
        return FactsTable(**arrays, treatments=self.treatments)


ARRAYS = tuple(field.name for field in fields(FactsTable) if field.name != "treatments")


def facts_table(facts: Sequence[Facts]) -> FactsTable:
    """The table of some facts, in their order."""
    number: dict[tuple[str, ...], int] = {}
    notes = [number.setdefault(one.notes, len(number)) for one in facts]
    values = [one.values or EIGHT_BITS for one in facts]
    return FactsTable(
        np.array([(one.height, one.width) for one in facts], np.int64).reshape(-1, 2),
        np.array([one.grey for one in facts], bool),
        np.array([one.blank for one in facts], bool),
        np.frombuffer(b"".join(one.fingerprint for one in facts), np.uint8).reshape(-1, 16),
        np.array(values, np.float64).reshape(-1, 3),
        np.array(notes, np.int64),
        tuple(number),
    )


def joined(tables: Sequence[FactsTable]) -> FactsTable:
    """The rows of all tables, in their order."""
    treatments = tuple(dict.fromkeys(chain.from_iterable(table.treatments for table in tables)))
    number = {notes: at for at, notes in enumerate(treatments)}
    renumbered = [
        np.array([number[one] for one in table.treatments], np.int64)[table.notes]
        for table in tables
    ]
    nothing = facts_table([])
    arrays = {
        name: np.concatenate([getattr(nothing, name), *(getattr(one, name) for one in tables)])
        for name in ARRAYS
        if name != "notes"
    }
    return FactsTable(
        **arrays, notes=np.concatenate([nothing.notes, *renumbered]), treatments=treatments
    )
