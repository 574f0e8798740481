"""`handful merge`: put the parts together that `--shard` left."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import AsJson
from handful.cli.terminal import answer, print_json, reporting
from handful.text import counted, for_terminal


def merge(
    parts: Annotated[Path, typer.Argument(help="The folder that --shard wrote its parts to.")],
    out: Annotated[
        Path,
        typer.Option(help="File to write: .csv of predictions, .npz of features; or .parquet."),
    ],
    as_json: AsJson = False,
) -> None:
    """Put the parts together that `predict --shard` or `embed --shard` left, as one file.

    The file is what one process would have written. Nothing is written if a shard is missing or
    there twice, or if parts are of different runs, options or images.

    Example: handful merge parts/ --out predictions.csv
    """
    from handful.pipeline.merge_parts import merge_parts

    with reporting() as reporter:
        found = merge_parts(parts, out, reporter.say)
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
