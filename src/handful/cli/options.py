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
Labels = Annotated[
    Path | None,
    typer.Option(
        help="CSV with columns file,label (blank: unlabeled) and perhaps group, or the label file "
        "of another tool (Kaggle, fastai, Hugging Face, Label Studio, CVAT, Roboflow, "
        "MegaDetector).",
        show_default=False,
    ),
]
FileColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of --labels that names the files; by default file, or a well-known name.",
        metavar="NAME",
        show_default=False,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of --labels that holds the labels; by default label, or a well-known name.",
        metavar="NAME",
        show_default=False,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Where known data sets are, or are downloaded to.",
        envvar="HANDFUL_DATA",
        show_default=False,
    ),
]
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
Folders = Annotated[
    str,
    typer.Option(
        help="What the sub-folders are: classes; groups (sites, cameras, patients that are never "
        "split), with the classes below them; ignore: nothing. auto: classes, but ask where "
        "groups may be meant, too.",
        metavar="auto|classes|groups|ignore",
    ),
]
Encoding = Annotated[str, typer.Option(help="Text encoding of the label file.")]
FollowLinks = Annotated[
    bool, typer.Option(help="Follow symbolic links that lead out of the folder.")
]


def pairs(texts: list[str]) -> dict[str, str]:
    """Return `["steps=500"]` as a mapping; HandfulError for a text without "="."""
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise HandfulError(f"--set takes NAME=VALUE, got {wrong[0]!r}; for example --set steps=500")
    return dict(text.split("=", 1) for text in texts)
