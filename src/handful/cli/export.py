"""`handful export`: leave a run as a folder that needs neither handful nor torch."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_left
from handful.cli.options import AsJson
from handful.cli.source_options import DataRoot


def export(
    run: Annotated[Path, typer.Argument(help="The folder that `handful fit --out` left.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    images: Annotated[
        str | None,
        typer.Option(
            help="Images to check the model on: a folder or a data set. By default those that the "
            "run learned from, where they are still there.",
            show_default=False,
        ),
    ] = None,
    no_images: Annotated[
        bool,
        typer.Option(
            "--no-images", help="Leave no image of the run in check.npz, for private photos."
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Leave a smaller model with int8 convolutions, too, if the labelled images show "
            "no loss of accuracy beyond its standard error.",
        ),
    ] = False,
    web: Annotated[
        bool,
        typer.Option(
            "--web",
            help="Leave a page that classifies pictures and the camera in the browser, too; it "
            "fetches onnxruntime-web from npm once.",
        ),
    ] = False,
    hub_folder: Annotated[
        bool,
        typer.Option(
            "--hub-folder",
            help="Leave the layout that the Hugging Face hub expects; uploading it is yours.",
        ),
    ] = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Export a run as an ONNX model, with a short program that classifies pictures with it.

    The folder needs numpy, pillow and onnxruntime only. Before it is left, the model answers
    images in batches of several sizes; a difference to the run of more than 0.001 in a
    probability, or of a class, stops the export.

    Example: handful export run/ --out model/ && python model/predict.py photos/ > answers.csv
    """
    check_left(run, "`handful fit`")

    from handful.cli.terminal import answer, print_json, reporting
    from handful.data.sources import load
    from handful.exporting.job import export
    from handful.output import check_new_folder
    from handful.pipeline.run import open_run

    check_new_folder(out)
    with reporting() as reporter:
        trained = open_run(run)
        given = None
        if images is not None:
            given = load(
                images, data_root=data_root, labeled=False, folders="ignore",
                track=reporter.track, say=reporter.say,
            )  # fmt: skip
        found = export(
            trained,
            out,
            images=given,
            keep_images=not no_images,
            int8=int8,
            hub=hub_folder,
            web=web,
            reporter=reporter,
        )
    agreement = found.agreement
    if as_json:
        print_json(
            {
                "out": str(out),
                "images": agreement.images,
                "worst": agreement.worst,
                "files": agreement.files,
                "remarks": list(found.remarks),
            }
        )
        return
    answer.print(
        f"{out}: the exported model answers {agreement.images} images as the run does "
        f"(probabilities within {agreement.worst:.0e}), and reads {agreement.files} picture files "
        f"alike",
        soft_wrap=True,
    )
    for remark in found.remarks:
        answer.print(remark, soft_wrap=True)
