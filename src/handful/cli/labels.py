"""`handful labels merge`: put the label files of several annotators together."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.help import HelpCommand, HelpGroup
from handful.errors import HandfulError
from handful.text import counted, for_terminal

labels = typer.Typer(cls=HelpGroup, help="Work on label files.")


@labels.callback(invoke_without_command=True)
def _labels(context: typer.Context) -> None:
    """Work on label files that `handful label` wrote."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@labels.command(cls=HelpCommand)
def merge(
    files: Annotated[list[Path], typer.Argument(help="Label files of the annotators.")],
    out: Annotated[Path, typer.Option(help="Label file to write.")] = Path("labels.csv"),
    overwrite: Annotated[bool, typer.Option(help="Replace --out.")] = False,
) -> None:
    """Merge label files: labels that agree are kept, the others are listed and left empty.

    Example: handful labels merge labels-ann.csv labels-bo.csv --out labels.csv
    """
    from handful.cli.terminal import answer
    from handful.labeling.label_table import write_labels
    from handful.labeling.merge import merge as merged

    if out.exists() and not overwrite:
        raise HandfulError(f"{out} exists; give another --out, or --overwrite")
    found = merged(files)
    write_labels(out, found.marks, found.groups)
    for name, said in found.disagreements.items():
        each = ", ".join(f"{what!r} in {path}" for path, what in said.items())
        answer.print(for_terminal(f"{name}: {each}"), markup=False, soft_wrap=True)
    labeled = sum(mark.label is not None for mark in found.marks.values())
    answer.print(
        for_terminal(
            f"{counted(labeled, 'label')} are in {out}; {found.agreed} were given alike by two or "
            f"more, {counted(len(found.disagreements), 'image')} differ and have no label"
        ),
        markup=False,
        soft_wrap=True,
    )
