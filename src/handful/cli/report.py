"""`handful report`: write runs and comparisons to one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_left


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

    `handful fit` and `handful compare` leave one in their folders; in Python `run.report()` does.
    It is made from the files of the folder alone.

    Examples:

        handful report run/ --out report.html --no-images

        handful report monday/ tuesday/ --out both.html
    """
    for run in runs:
        check_left(run, "`handful fit` or `handful compare`")

    from handful.cli.terminal import answer
    from handful.report import make_report

    target = make_report(runs, out, pictures=not no_images)
    answer.print(f"written to {target}", soft_wrap=True)
