"""`handful evaluate`: score a run on labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.collector import few_collections
from handful.cli.early_checks import check_left
from handful.cli.options import (
    AsJson,
)
from handful.cli.source_options import SourceOptions, takes_source_options


@takes_source_options()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder that `handful fit --out` left.")],
    source: Annotated[
        str, typer.Argument(help="Labelled images: class sub-folders or a data set.")
    ],
    where: SourceOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json and confusion.svg.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on labelled images it was not trained on: accuracy with an interval, and more.

    A source with a test part is scored on that part. Images of classes that the run does not know
    are left out, and a second accuracy counts them as wrong. The figures
    are printed; --out keeps them, with the confusion matrix as a plot.

    Example: handful evaluate run/ labelled-test-photos/ --out scores/
    """
    check_left(run, "`handful fit`")

    with few_collections():
        from handful.cli.terminal import print_evaluation, print_json, reporting, say_skipped
        from handful.evaluation.plots import plot_confusion
        from handful.files import beside, write_json
        from handful.output import EVALUATION, PLOT, folder_target
        from handful.pipeline.run import open_run

    if out is not None:
        scores = folder_target(out, "evaluation.json", EVALUATION)
        plot = folder_target(out, "confusion.svg", PLOT)
    with reporting() as reporter:
        trained = open_run(run)
        boxes = trained.cut_alike(where.crops)
        images = where.load(source, reporter, labeled=False, every_class=True, boxes=boxes)
        if images.test is not None and Path(source).exists():
            reporter.say(f"scored are the {len(images.test)} images of the test part")
        found = trained.evaluate(images.test or images, track=reporter.track, say=reporter.say)
        say_skipped(images, reporter.say)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_json(scores, found.as_json())
            with beside(plot) as path:
                plot_confusion(found, path)
    if as_json:
        print_json(found.as_json())
    else:
        print_evaluation(found)
