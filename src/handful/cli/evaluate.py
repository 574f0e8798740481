"""`handful evaluate`: score a run on labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import (
    AsJson,
    DataRoot,
    Encoding,
    FileColumn,
    Folders,
    FollowLinks,
    LabelColumn,
    Labels,
)
from handful.cli.terminal import print_evaluation, print_json, reporting, say_skipped


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder that `handful fit --out` left.")],
    source: Annotated[
        str, typer.Argument(help="Labelled images: class sub-folders or a data set.")
    ],
    labels: Labels = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json and confusion.svg.", show_default=False),
    ] = None,
    folders: Folders = "auto",
    encoding: Encoding = "utf-8",
    file_column: FileColumn = None,
    label_column: LabelColumn = None,
    follow_links: FollowLinks = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on labelled images it was not trained on: accuracy with an interval, and more.

    A source with a test part is scored on that part. Images of classes that the run does not know
    are left out, and a second accuracy counts them as wrong. The figures
    are printed; --out keeps them, with the confusion matrix as a plot.

    Example: handful evaluate run/ labelled-test-photos/ --out scores/
    """
    from handful.data.sources import load
    from handful.evaluation.plots import plot_confusion
    from handful.files import beside, write_json
    from handful.output import EVALUATION, PLOT, folder_target
    from handful.pipeline.run import open_run

    if out is not None:
        scores = folder_target(out, "evaluation.json", EVALUATION)
        plot = folder_target(out, "confusion.svg", PLOT)
    with reporting() as reporter:
        trained = open_run(run)
        images = load(
            source,
            labels,
            data_root=data_root,
            encoding=encoding,
            file_column=file_column,
            label_column=label_column,
            folders=folders,
            follow_links=follow_links,
            labeled=False,
            every_class=True,
            track=reporter.track,
            say=reporter.say,
        )
        if images.test is not None and Path(source).exists():
            reporter.say(f"scored are the {len(images.test)} images of the test part")
        if known := trained.trained_on(images.test or images):
            reporter.say(
                f"{known} of these images are among those the run was trained on: "
                f"their accuracy says nothing about new images"
            )
        found = trained.evaluate(images.test or images, reporter.track)
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
