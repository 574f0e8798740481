"""`handful merge`: put the parts together that `--shard` left."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_left
from handful.cli.options import AsJson
from handful.cli.shards import print_merged


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
    check_left(parts, "--shard")

    from handful.cli.terminal import reporting
    from handful.pipeline.merge_parts import merge_parts

    with reporting() as reporter:
        found = merge_parts(parts, out, reporter.say)
    print_merged(found, out, as_json)
