"""The option `--shard` of predict and embed, and what is printed of parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.options import EXPERT
from handful.errors import HandfulError
from handful.text import counted, for_terminal

if TYPE_CHECKING:
    from handful.pipeline.merge_parts import Merged
    from handful.pipeline.parts import Part

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Do only this share of the images, as in 3/64: the third of 64, chosen by a hash of "
        "the names. --out is a folder, and `handful merge` makes one file of its parts.",
        metavar="K/N",
        show_default=False,
        rich_help_panel=EXPERT,
    ),
]


def parts_folder(out: Path | None) -> Path:
    """The folder given with --out; HandfulError without one."""
    if out is None:
        raise HandfulError("--shard writes a part of the result; give --out a folder for the parts")
    if out.suffix.lower() in (".csv", ".npz", ".parquet"):
        raise HandfulError(
            f"with --shard, --out is a folder for the parts, and {out} is the name of a file; try "
            f"--out parts/, and handful merge parts/ --out {out}"
        )
    return out


def file_for(out: Path | None) -> Path:
    """The file given with --out; HandfulError without one."""
    if out is None:
        raise HandfulError("--on writes a file; give it with --out predictions.csv")
    return out


def print_part(part: "Part", before: bool, as_json: bool) -> None:
    """Print where a part is, and how many images it has."""
    from handful.cli.terminal import answer, print_json

    about = part.about
    shard = f"{about['number']}/{about['of']}"
    if as_json:
        print_json(
            {
                "part": str(part.path),
                "shard": shard,
                "images": len(part.at),
                "left_out": about["left_out"],
                "done_before": before,
            }
        )
        return
    left_out = f", {about['left_out']:,} left out" if about["left_out"] else ""
    images = f"{counted(len(part.at), 'image')}{left_out} → {part.path}"
    text = f"shard {shard} is there already: {images}" if before else f"shard {shard}: {images}"
    answer.print(for_terminal(text), markup=False, soft_wrap=True)
    if about["unfetched"]:
        answer.print(
            f"{about['unfetched']:,} could not be fetched; the same command tries them again",
            soft_wrap=True,
        )


def print_merged(found: "Merged", out: Path, as_json: bool) -> None:
    """Print what one file was made of."""
    from handful.cli.terminal import answer, print_json

    if as_json:
        left_out = [{"file": name, "reason": reason} for name, reason in found.examples]
        print_json(
            {
                "out": str(out),
                "images": found.images,
                "shards": found.shards,
                "kind": found.kind,
                "left_out": left_out,
            }
        )
        return
    text = f"{counted(found.images, 'image')} from {counted(found.shards, 'shard')} → {out}"
    answer.print(for_terminal(text), markup=False, soft_wrap=True)
    if found.left_out:
        first = found.examples[0]
        text = f"{found.left_out:,} left out; the first is {first.name}: {first.reason}"
        answer.print(for_terminal(text), markup=False, soft_wrap=True)
