"""`handful pretrain`: train a backbone on images alone."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import (
    LARGEST_SEED,
    AsJson,
    Devices,
    Precision,
    Size,
    Source,
    pairs,
)
from handful.cli.source_options import SourceOptions, takes_source_options


@takes_source_options(folders=None)
def pretrain(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the backbone; the same command goes on with an unfinished one."
        ),
    ],
    where: SourceOptions,
    method: Annotated[
        str, typer.Option(help="How to learn without labels: simclr, vicreg, cmc or autoencoder.")
    ] = "simclr",
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network; by default small, for cmc two of small-encoder.", show_default=False
        ),
    ] = None,
    size: Size = None,
    aspect: Annotated[
        str, typer.Option(help="How to make images square: crop, pad or stretch.")
    ] = "crop",
    flips: Annotated[
        bool | None,
        typer.Option(
            "--flips/--no-flips",
            help="Whether views may be mirrored; by default only in colour.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the method or its schedule, as in --set temperature=0.2, --set "
            "augment=simclr,-blur,+cut-out or --set optimizer=lars.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for all of it, pictures included, as in 10m or 1h: steps are timed first, "
            "and as many are taken as fit, more or fewer where the machine turns out faster or "
            "slower.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    precision: Precision = "auto",
    devices: Devices = 1,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="The same seed gives the same bits on the same kind of processor, unless a budget "
            "sets the number of steps; by default 0.",
            show_default=False,
        ),
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Leave no picture in the folder.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what another command left.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a backbone on images alone; `handful fit --init` makes a classifier of it.

    No label is learned from. Where there are some, the history says how often the nearest images
    of an image are of its class. The folder gets the weights, the history and pictures: the views,
    what an autoencoder paints, curves, a map of the features. A collapse is said when it happens.

    Examples:

        handful pretrain photos/ --method simclr --out pre/

        handful pretrain photos/ --backbone fast --size 32 --budget 1h --out pre/

        handful fit photos/ --labels labels.csv --init pre/ --method features --out run/
    """
    from handful.cli.terminal import answer, print_json, print_skipped, reporting
    from handful.pipeline.pretrain import pretrain as run_pretraining
    from handful.text import in_seconds, shell_command
    from handful.training.processes import check_devices

    check_devices(devices)
    with reporting() as reporter:
        images = where.load(source, reporter, labeled=False)
        pretrained = run_pretraining(
            images,
            method,
            out=out,
            seed=seed,
            overwrite=overwrite,
            backbone=backbone,
            size=size,
            aspect=aspect,
            flips=flips,
            precision=precision,
            settings=pairs(set_ or []),
            budget=None if budget is None else in_seconds(budget),
            pictures=not no_images,
            devices=devices,
            track=reporter.track,
            say=reporter.say,
            command=sys.argv[1:],
        )
    if as_json:
        print_json(pretrained.record)
        return
    training, health = pretrained.record["training"], pretrained.record["health"]
    answer.print(
        f"{pretrained.record['data']['images']} images, {training['steps']} steps in "
        f"{training['seconds']:.0f} s; spread of the features {health['spread']:.2f}, effective "
        f"rank {health['rank']:.0f}"
    )
    if "knn_accuracy" in health:
        answer.print(f"nearest images are of the same class: {health['knn_accuracy']:.1%}")
    if pretrained.record["collapse"] is not None:
        answer.print(pretrained.record["collapse"])
    following = ("fit", source, "--init", out, "--out", "RUN")
    answer.print(f"The backbone is in {out}; next: {shell_command(*following)}")
    print_skipped(images)
