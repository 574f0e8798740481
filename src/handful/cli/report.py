"""`handful report`: write runs and comparisons to one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_left
from handful.errors import HandfulError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="A folder that `handful fit` or `handful compare` left, or several runs to be "
            "shown side by side.",
            metavar="RUN...",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file; by default report.html in the folder, if there is one folder.",
            show_default=False,
        ),
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Leave all pictures out, for private photos.")
    ] = False,
) -> None:
    """Show a run or a comparison as one HTML file, to be read without network or scripts.

    `handful fit` and `handful compare` leave one in their folders; `handful.fit` in Python does
    not. It is made from the files of the folder alone.

    Examples:

        handful report run/ --out report.html --no-images

        handful report monday/ tuesday/ --out both.html
    """
    for run in runs:
        check_left(run, "`handful fit` or `handful compare`")

    from handful.cli.terminal import answer
    from handful.output import PAGE, output_target, written
    from handful.pipeline.artifacts import REPORT
    from handful.report import write_report

    if out is None and len(runs) > 1:
        raise HandfulError("several runs are shown in one file; name it with --out report.html")
    target = out or runs[0] / REPORT
    if out is None:
        write_report(runs, target, pictures=not no_images)
    else:
        output_target(out, PAGE)
        with written(out) as whole:
            write_report(runs, whole, pictures=not no_images)
    answer.print(f"written to {target}", soft_wrap=True)
