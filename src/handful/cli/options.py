"""Options that several commands share, and the parser of `--set`."""

from pathlib import Path
from typing import Annotated

import typer

from handful.errors import HandfulError

LARGEST_SEED = 2**63 - 1
SOURCE_HELP = (
    "A folder of images, or one of: digits, mnist, fashion-mnist, cifar10, stl10. In a folder, "
    "sub-folders are classes; images at the top or in unlabeled/ have no label; train/ and test/ "
    "parts are kept apart."
)
Source = Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else there.")
]


Size = Annotated[
    int | None,
    typer.Option(
        help="Side in pixels to bring images to; by default their own, at most 64, or what suits "
        "a pre-trained network (160 or 224).",
        show_default=False,
    ),
]
Precision = Annotated[
    str, typer.Option(help="fp32, bf16, or auto: whichever a short measurement finds faster.")
]
Init = Annotated[
    Path | None,
    typer.Option(
        help="Folder that `handful pretrain` left: the network starts from it, or is frozen, as "
        "the method has it.",
        show_default=False,
    ),
]
TestFraction = Annotated[
    float, typer.Option(help="Share of the labelled images to set aside as the test part.")
]


def pairs(texts: list[str]) -> dict[str, str]:
    """Return `["steps=500"]` as a mapping; HandfulError for a text without "="."""
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise HandfulError(f"--set takes NAME=VALUE, got {wrong[0]!r}; for example --set steps=500")
    return dict(text.split("=", 1) for text in texts)
