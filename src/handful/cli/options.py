"""Options that several commands share, and the parser of `--set`."""

from pathlib import Path
from typing import Annotated

import typer

from handful.errors import HandfulError

LARGEST_SEED = 2**63 - 1
DATA, TIME, RESULT, EXPERT = "Data", "Time", "Result", "Expert"  # groups of options in a help
SOURCE_HELP = (
    "A folder of images; an address (s3://bucket/photos/), archive, table or list of images; or "
    "one of: digits, mnist, fashion-mnist, cifar10, stl10. In a folder, sub-folders are classes; "
    "images at the top or in unlabeled/ have no label; train/ and test/ parts are kept apart."
)
Source = Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=RESULT),
]


Size = Annotated[
    int | None,
    typer.Option(
        help="Side in pixels that images are resized to; by default their own, at most 64, and 160 "
        "or 224 for a pre-trained network.",
        metavar="PIXELS",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Of numbers; auto: the fastest one. int8 is for features of lite0 to lite2.",
        metavar="auto|int8|fp32|bf16",
        rich_help_panel=EXPERT,
    ),
]
Init = Annotated[
    Path | None,
    typer.Option(
        help="Folder that `handful pretrain` left, whose network is used.",
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
Host = Annotated[
    str, typer.Option(help="Address to listen on; other machines need --allow-network.")
]
AllowNetwork = Annotated[
    bool,
    typer.Option("--allow-network", help="Let --host be one that other machines can reach."),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        help="How many GPUs of this machine train together, or processes where it has no GPU. They "
        "divide every batch, so the result is that of one, but for rounding and dropout. More than "
        "one needs pip install 'handful[ddp]'.",
        metavar="COUNT",
        rich_help_panel=EXPERT,
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Do the work on a cluster: ray is one on this machine, a process for each core, or "
        "that of RAY_ADDRESS; ray://HOST:10001 is one elsewhere. It needs pip install "
        "'handful[ray]'.",
        metavar="CLUSTER",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
TestFraction = Annotated[
    float,
    typer.Option(
        help="Share of the labelled images that is set aside to test the classifier.",
        metavar="SHARE",
        rich_help_panel=DATA,
    ),
]


def pairs(texts: list[str]) -> dict[str, str]:
    """Return `["steps=500"]` as a mapping; HandfulError for a text without "="."""
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise HandfulError(f"--set takes NAME=VALUE, got {wrong[0]!r}; for example --set steps=500")
    return dict(text.split("=", 1) for text in texts)
