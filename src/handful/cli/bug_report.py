"""`handful bug-report`: print what a report of a fault needs."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import AsJson


def bug_report(
    run: Annotated[
        Path | None,
        typer.Argument(help="The folder of a run that the report is about.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a report of a fault needs: versions, machine, and of a run its figures.

    No names of files, folders or classes are in it, so it can be pasted into a public issue.

    Example: handful bug-report run/ > bug-report.txt
    """
    from handful.cli.terminal import print_json
    from handful.pipeline.bug_report import about_machine, about_run, as_text

    of_run = None if run is None else about_run(run)
    machine = about_machine()
    if as_json:
        print_json({"machine": machine, "run": of_run})
        return
    print(as_text(machine))
    if of_run is not None:
        print("\nThe run, without names of files, folders and classes:")
        print(as_text(of_run))
