"""How photos are cut into crops: the file of the boxes, and what is made of each box.

A crop is named after its photo and the place of its box in the file: `site1/IMG_0001.jpg#2` is the
second box that the file lists for `site1/IMG_0001.jpg`, whether or not the first one is used.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handful.errors import HandfulError

MIN_CONFIDENCE = 0.2  # where the file does not recommend another one; see `Boxes`
PADDING = 0.0  # on synthetic camera frames every tenth cost 4 points: benchmarks/log/crops.md
MOST_PADDING = 2.0
MARK = "#"  # between the name of a photo and the number of a box


@dataclass(frozen=True)
class Boxes:
    """A file of boxes, and how crops are made of them; `load`, `fit` and `predict` take it.

    >>> handful.load("photos", boxes=handful.Boxes("boxes.csv", padding=0.1), labeled=False).names
    ['fox-1.png#1', 'hare-1.png#1', 'hare-1.png#2']

    Attributes:
        file: the output of MegaDetector, annotations of COCO, or a CSV with the columns file,
            x_min, y_min, width, height (or x1, y1, x2, y2), and conf and label if there are any.
        min_confidence: boxes that the detector is less sure of are not used. By default what the
            file recommends, else 0.2: the threshold that MegaDetector 5 recommends and that tools
            for its files start with.
        padding: what is added on every side, as a share of the box, 0 by default: what surrounds an
            animal costs more than it tells. Add some where boxes cut off ears and tails.
        square: widen the shorter side, as far as the photo goes. It is the default, since networks
            see squares: of a long box they would see the middle part only.
    """

    file: Path | str
    min_confidence: float | None = None
    padding: float | None = None
    square: bool | None = None

    def __post_init__(self) -> None:
        _check("min_confidence", self.min_confidence, 1.0, "0.2")
        _check("padding", self.padding, MOST_PADDING, "0.1")

    @property
    def path(self) -> Path:
        return Path(self.file).expanduser()

    def as_in(self, record: dict[str, Any] | None) -> "Boxes":
        """These boxes, cut as those of a run, where nothing else is asked for.

        >>> handful.Boxes("boxes.csv", padding=0).as_in({"padding": 0.3, "square": False})
        Boxes(file='boxes.csv', min_confidence=None, padding=0, square=False)

        Args:
            record: padding and square of the run's own boxes, or None.
        """
        if record is None:
            return self
        padding = record["padding"] if self.padding is None else self.padding
        square = record["square"] if self.square is None else self.square
        return replace(self, padding=padding, square=square)


def boxes_of(given: Any) -> Boxes | None:
    """What a user gave as boxes: None, a path or `Boxes`; HandfulError for anything else."""
    if given is None or isinstance(given, Boxes):
        return given
    if isinstance(given, str | Path):
        return Boxes(given)
    raise HandfulError(
        f"boxes is a {type(given).__name__}; give the path of a file of boxes (MegaDetector, COCO "
        f"or a CSV), or handful.Boxes(path, padding=...)"
    )


def crop_name(photo: str, number: int) -> str:
    """The name of a crop: the box of this number, from 1, in a photo."""
    return f"{photo}{MARK}{number}"


def photo_of(crop: str) -> str:
    """The photo that a crop was cut out of."""
    return crop.rpartition(MARK)[0]


def _check(name: str, value: Any, most: float, example: str) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= most:
        raise HandfulError(
            f"{name} is a number from 0 to {most:g}, got {value!r}; for example {example}"
        )
