"""`handful reproduce`: run a recipe on several draws of labels."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_cluster
from handful.cli.options import AsJson, Devices, On
from handful.cli.source_options import DataRoot
from handful.errors import HandfulError


def reproduce(
    name: Annotated[str, typer.Argument(help="A recipe; `handful recipes` lists them.")],
    draws: Annotated[
        int | None,
        typer.Option(
            max=10_000,
            help="How many draws of labels; by default 5, or 10 for a study of seeds.",
            show_default=False,
        ),
    ] = None,
    first_draw: Annotated[int, typer.Option(min=0, max=10**9, help="Seed of the first draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a run of each draw, with its report, and curves.svg; by default "
            "runs/NAME. The same command goes on with what is in it.",
            show_default=False,
        ),
    ] = None,
    data_root: DataRoot = None,
    on: On = None,
    devices: Devices = 1,
    as_json: AsJson = False,
) -> None:
    """Run a recipe on several draws of labels: what a report published, and what comes out.

    Example: handful reproduce mnist-cnn --draws 3
    """
    check_cluster(on)

    from handful.cli.terminal import print_json, print_reproduced, reporting
    from handful.pipeline.recipes import find
    from handful.pipeline.recipes.reproduce import reproduce as run_recipe
    from handful.report import leave_report
    from handful.report.seed_curves import plot_curves, read_history

    recipe = find(name)
    folder = out or Path("runs") / recipe.name
    count = recipe.draws if draws is None else draws
    if count < 1:
        raise HandfulError(f"--draws must be 1 or more, got {count}")
    outcomes = []
    with reporting() as reporter:
        reporter.say(f"{recipe.what}; {count} draws of about {recipe.minutes:g} min on two cores")
        seeds = range(first_draw, first_draw + count)
        for outcome in run_recipe(recipe, seeds, folder, data_root, reporter, on, devices):
            reporter.say(f"draw {outcome.draw}: {outcome.accuracy:.2%} in {outcome.seconds:.0f} s")
            outcomes.append(outcome)
            leave_report(folder / f"draw-{outcome.draw}", reporter.say)
    histories = {found.draw: read_history(folder / f"draw-{found.draw}") for found in outcomes}
    if all(histories.values()):
        plot_curves(histories, folder / "curves.svg", f"{recipe.name}, {count} seeds")
    if as_json:
        print_json(
            {
                "name": recipe.name,
                "published": recipe.published,
                "draws": [
                    {"draw": x.draw, "test_accuracy": x.accuracy, "n": x.n, "seconds": x.seconds}
                    for x in outcomes
                ],
            }
        )
    else:
        print_reproduced(recipe, [found.accuracy for found in outcomes], folder)
