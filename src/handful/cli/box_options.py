"""The options that say how photos are cut into crops, shared by the commands that load images."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import DATA, EXPERT
from handful.data.boxes.options import Boxes
from handful.errors import HandfulError
from handful.text import similar_file

BoxFile = Annotated[
    Path | None,
    typer.Option(
        help="Boxes in the photos, by MegaDetector, COCO or a CSV: the crops are the images.",
        metavar="FILE",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        help="Least confidence of --boxes; by default what their file recommends, or 0.2.",
        metavar="SHARE",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
Padding = Annotated[
    float | None,
    typer.Option(
        help="Added to every side of --boxes, as a share; by default 0.",
        metavar="SHARE",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
Square = Annotated[
    bool | None,
    typer.Option(
        "--square/--no-square",
        help="Widen --boxes to squares (the default).",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]


def boxes_given(
    file: Path | None, min_confidence: float | None, padding: float | None, square: bool | None
) -> Boxes | None:
    """The typed options; HandfulError for an option without its file, or a file that is missing."""
    if file is not None:
        if not file.expanduser().exists():
            raise HandfulError(f"no file {str(file)!r}; check the path{similar_file(file)}")
        return Boxes(file, min_confidence, padding, square)
    named = {"--min-confidence": min_confidence, "--padding": padding, "--square": square}
    for name, value in named.items():
        if value is not None:
            raise HandfulError(f"{name} is for boxes in photos; give their file with --boxes")
    return None
