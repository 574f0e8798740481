"""The options that say where images and labels are, shared by the commands that load them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from handful.cli.box_options import BoxFile, MinConfidence, Padding, Square, boxes_given
from handful.cli.options import DATA, EXPERT
from handful.data.source_names import check_source

if TYPE_CHECKING:
    from handful.data.boxes.options import Boxes
    from handful.data.imageset import ImageSet
    from handful.progress import Reporter


Labels = Annotated[
    Path | None,
    typer.Option(
        help="CSV with columns file,label (label blank: unlabelled), or the label file of another "
        "tool (Kaggle, Hugging Face, Label Studio, CVAT, COCO, ...).",
        metavar="FILE",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
FileColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of --labels with the file names.",
        metavar="NAME",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of --labels with the labels.",
        metavar="NAME",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of public data sets; missing ones are downloaded to it ($HANDFUL_DATA).",
        envvar="HANDFUL_DATA",
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]
Folders = Annotated[
    str,
    typer.Option(
        help="What sub-folders are: classes; groups (sites, cameras, patients) with classes below; "
        "ignore: nothing.",
        metavar="auto|classes|groups|ignore",
        rich_help_panel=DATA,
    ),
]
Encoding = Annotated[
    str, typer.Option(help="Text encoding of the label file.", rich_help_panel=EXPERT)
]
FollowLinks = Annotated[
    bool,
    typer.Option(help="Follow symbolic links that lead out of the folder.", rich_help_panel=EXPERT),
]

CUT = ("boxes", "min_confidence", "padding", "square")  # how photos are cut into crops

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True)
class SourceOptions:
    """Every field is an option of the command line."""

    labels: Labels = None
    folders: Folders = "auto"
    encoding: Encoding = "utf-8"
    file_column: FileColumn = None
    label_column: LabelColumn = None
    follow_links: FollowLinks = False
    data_root: DataRoot = None
    boxes: BoxFile = None
    min_confidence: MinConfidence = None
    padding: Padding = None
    square: Square = None

    @property
    def crops(self) -> "Boxes | None":
        """The boxes whose crops are the images; None for whole images."""
        return boxes_given(self.boxes, self.min_confidence, self.padding, self.square)

    def load(self, source: str, reporter: "Reporter", **how: Any) -> "ImageSet":
        """The images of `source`; `how` as in `handful.load`."""
        from handful.data.sources import load

        names = (field.name for field in fields(self) if field.name not in CUT)
        given = {name: getattr(self, name) for name in names}
        how.setdefault("boxes", self.crops)
        return load(source, track=reporter.track, say=reporter.say, **given, **how)


def takes_source_options(**defaults: Any) -> Callable[[Command], Command]:
    """A decorator that puts the fields of SourceOptions in place of a command's parameter `where`.

    Typer reads options from a signature, so the decorated command has one that lists them all.

    Args:
        defaults: of fields that have another default in this command.
    """
    hints = get_type_hints(SourceOptions, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(
            field.name,
            keyword,
            default=defaults.get(field.name, field.default),
            annotation=hints[field.name],
        )
        for field in fields(SourceOptions)
    ]

    def decorate(command: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            one = [parameter.replace(kind=keyword)]
            parameters += options if parameter.name == "where" else one

        @wraps(command)
        def called(**given: Any) -> None:
            own = {option.name: given.pop(option.name) for option in options}
            if "source" in given:
                check_source(given["source"])  # before torch is imported
            boxes_given(*(own[name] for name in CUT))
            command(where=SourceOptions(**own), **given)

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        return called  # type: ignore[return-value]

    return decorate
