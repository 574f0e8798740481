"""`handful predict`: classify new images with a run."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.box_options import BoxFile, MinConfidence, Padding, Square, boxes_given
from handful.cli.collector import few_collections
from handful.cli.early_checks import check_cluster, check_left
from handful.cli.options import AsJson, On
from handful.cli.shards import ShardOption, file_for, parts_folder, print_merged, print_part
from handful.cli.source_options import DataRoot, FollowLinks
from handful.data.source_names import check_source
from handful.errors import HandfulError
from handful.text import counted, for_terminal, some_of

if TYPE_CHECKING:
    from handful.pipeline.run import Run


def predict(
    run: Annotated[Path, typer.Argument(help="The folder that `handful fit --out` left.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images, one image file, an address (s3://bucket/photos/), archive, "
            "table or list of images, or a data set."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="CSV to write: file, label, confidence, p(class)...; or Parquet, by the ending. "
            "With --shard the folder for the parts.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Copy the images into class folders in here. Nothing of yours is overwritten; "
            "copies of an earlier call move if their class is another now.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="With --into: say what would be copied; write nothing."),
    ] = False,
    abstain: Annotated[
        float | None,
        typer.Option(
            help="Answer only where at least this share of the answers is right, as in --abstain "
            "0.85; other images get no label. fit prints the highest that its labels can promise.",
            show_default=False,
        ),
    ] = None,
    none_of_these: Annotated[
        bool,
        typer.Option(
            "--none-of-these",
            help="Look for images unlike any that the run has seen: they get no label, and a yes "
            "in the column none_of_these. Of images like its own, few get one, too: at most 2 %, "
            "or what 9 to 48 images allow.",
        ),
    ] = False,
    boxes: BoxFile = None,
    by_photo: Annotated[
        Path | None,
        typer.Option(
            help="With --boxes: CSV to write, a row for every photo, which Timelapse imports.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    recognitions: Annotated[
        Path | None,
        typer.Option(
            help="With --boxes: JSON to write, boxes and classes in MegaDetector's format, which "
            "Timelapse reads.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    min_confidence: MinConfidence = None,
    padding: Padding = None,
    square: Square = None,
    shard: ShardOption = None,
    on: On = None,
    follow_links: FollowLinks = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Classify new images with a run.

    handful predict photos-run more-photos/ --out predictions.csv
    handful predict photos-run more-photos/ --into sorted/
    handful predict run/ more/ --boxes more.json --by-photo photos.csv

    With --abstain 0.9 at least nine of ten answers are right on images like the labelled ones. That
    holds for nine in ten sets of labels; a run whose labels are too few to show it refuses. With
    --none-of-these, photos of things that the model has never seen get no answer.
    """
    check_cluster(
        on,
        shard=shard,
        into=into,
        dry_run=dry_run,
        boxes=boxes,
        by_photo=by_photo,
        recognitions=recognitions,
    )
    whole = None if on is None else file_for(out)
    check_left(run, "`handful fit`")
    check_source(source)

    with few_collections():
        from handful.cli.terminal import (
            left_out_of,
            print_counts,
            print_json,
            print_skipped,
            print_sorted,
            reporting,
            say_skipped,
        )
        from handful.data.sources import load
        from handful.output import PHOTO_ANSWERS, PREDICTIONS, RECOGNITIONS, output_target
        from handful.parquet_files import check_parquet
        from handful.pipeline.run import about_answers, open_run

    files = {"--out": out, "--by-photo": by_photo, "--recognitions": recognitions}
    given = [name for name, path in files.items() if path is not None]
    if dry_run and (into is None or given):
        raise HandfulError(
            f"--dry-run reports what --into would do and writes nothing; use it with --into and "
            f"without {' and '.join(given or ['--out'])}"
        )
    _check_apart(files)
    crops = boxes_given(boxes, min_confidence, padding, square)
    for name, file, kind in (
        ("--by-photo", by_photo, PHOTO_ANSWERS),
        ("--recognitions", recognitions, RECOGNITIONS),
    ):
        if file is not None and crops is None:
            raise HandfulError(f"{name} is for the crops of photos; give their --boxes")
        if file is not None:
            output_target(file, kind)
    if shard is not None:
        if crops is not None:
            raise HandfulError(
                "--boxes needs all photos at once, and --shard reads a part of them; leave one of "
                "the two out"
            )
        _predict_shard(
            run, source, shard, out, into, abstain, none_of_these, follow_links, data_root, as_json
        )
        return
    if on is not None and whole is not None:
        _predict_on(
            on, run, source, whole, abstain, none_of_these, follow_links, data_root, as_json
        )
        return
    if out is not None:
        output_target(out, PREDICTIONS)  # before anything is predicted
        check_parquet(out)
    with reporting() as reporter:
        trained = open_run(run)
        if into is not None:
            _check_into(source, into, trained)
        for line in about_answers(trained, abstain, none_of_these):
            reporter.say(line)
        images = load(
            source,
            data_root=data_root,
            follow_links=follow_links,
            keep_leaks=True,
            labeled=False,
            folders="ignore",
            boxes=trained.cut_alike(crops),
            track=reporter.track,
            say=reporter.say,
        )
        if into is not None and not images.store.in_folder:
            raise HandfulError(_no_files(source))
        predictions = trained.predict(images, reporter.track, abstain, none_of_these, reporter.say)
        written = [path for path in (out, into, by_photo, recognitions) if path is not None]
        if as_json or not written:
            say_skipped(images, reporter.say)
        photos = predictions.by_photo() if crops is not None else []
        if remarks := Counter(one.remark for one in photos if one.remark):
            reporter.say(_without_answer(remarks, len(photos)))
        if out is not None:
            predictions.save(out, reporter.say)
        if by_photo is not None:
            predictions.to_photo_csv(by_photo)
        if recognitions is not None:
            predictions.to_recognitions(recognitions)
        placed = None
        if into is not None:
            placed = predictions.into_folders(
                Path(source).expanduser(), into, dry_run, reporter.track
            )
            for line in left_out_of(placed):
                reporter.say(line)
    if as_json:
        columns: list[Sequence[object]] = [
            predictions.names,
            predictions.labels,
            predictions.confidence,
        ]
        keys = ["file", "label", "confidence"]
        if none_of_these:
            columns.append(predictions.none_of_these)
            keys.append("none_of_these")
        rows = zip(*columns, strict=True)
        answers = [dict(zip(keys, row, strict=True)) for row in rows]
        left_out = [*images.store.skipped, *(placed.left_out if placed is not None else ())]
        found: dict[str, object] = {
            "predictions": answers,
            "left_out": [{"file": name, "reason": reason} for name, reason in left_out],
        }
        if crops is not None:
            keys = ["file", "label", "confidence", "crops", "remark"]
            found["photos"] = [dict(zip(keys, one, strict=True)) for one in photos]
        if placed is not None:
            found["sorted"] = placed.as_json()
        print_json(found)
    elif not written:
        for name, label, confidence, *_ in predictions.rows():
            print(f"{for_terminal(name)}\t{for_terminal(label)}\t{confidence}")
    else:
        places = [one.label or one.remark for one in photos] if crops else predictions.places
        print_counts(places, [str(path) for path in written])
        if placed is not None:
            print_sorted(placed)
        print_skipped(images)


def _predict_shard(
    run: Path,
    source: str,
    shard: str,
    out: Path | None,
    into: Path | None,
    abstain: float | None,
    none_of_these: bool,
    follow_links: bool,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Write the part of one shard, or say that it is there."""
    from handful.cli.terminal import reporting
    from handful.pipeline.shards import predict_shard

    if into is not None:
        raise HandfulError("--into sorts all images at once; leave out --shard, or merge first")
    with reporting() as reporter:
        done = predict_shard(
            run,
            source,
            shard,
            parts_folder(out),
            abstain=abstain,
            none_of_these=none_of_these,
            reporter=reporter,
            follow_links=follow_links,
            data_root=data_root,
        )
    print_part(done.part, done.before, as_json)


def _predict_on(
    on: str,
    run: Path,
    source: str,
    out: Path,
    abstain: float | None,
    none_of_these: bool,
    follow_links: bool,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Predict on a cluster, and print what was written."""
    from handful.cli.terminal import reporting
    from handful.pipeline.on_cluster import predict_on

    with reporting() as reporter:
        merged = predict_on(
            on,
            run,
            source,
            out,
            abstain=abstain,
            none_of_these=none_of_these,
            reporter=reporter,
            follow_links=follow_links,
            data_root=data_root,
        )
    print_merged(merged, out, as_json)


def _without_answer(remarks: "Counter[str]", photos: int) -> str:
    """Return in one sentence how many photos have no answer, and why."""
    common = [f"{n:,} {remark}" for remark, n in remarks.most_common()]
    return f"{remarks.total():,} of {counted(photos, 'photo')} have no class: {some_of(common, 4)}"


def _check_apart(files: dict[str, Path | None]) -> None:
    """Raise HandfulError if two of the files to write are one."""
    names: dict[Path, str] = {}
    for name, path in files.items():
        if path is None:
            continue
        before = names.setdefault(path.expanduser().resolve(), name)
        if before != name and path != Path(os.devnull):
            raise HandfulError(
                f"{before} and {name} would both write {path}; give each a file of its own"
            )


def _check_into(source: str, into: Path, trained: "Run") -> None:
    """Raise HandfulError, before anything is predicted, if copies cannot be written to `into`."""
    from handful.data.objects.find import is_elsewhere
    from handful.data.sources import SOURCES
    from handful.pipeline.sorting import check_target

    if is_elsewhere(source):
        raise HandfulError(_no_files(source))
    if source in SOURCES:
        raise HandfulError(f"--into copies files, but {source!r} is a data set without files")
    check_target(Path(source).expanduser(), into, trained.classes, trained.source_folder)


def _no_files(source: str) -> str:
    from handful.data.source_names import redacted

    return (
        f"--into copies the files of a folder, and the images of {redacted(source)} are "
        f"no files in one; use "
        f"--out, or copy the images to a folder first"
    )
