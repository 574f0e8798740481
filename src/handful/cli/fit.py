"""`handful fit`: train a classifier and estimate its accuracy."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from handful.cli.collector import few_collections
from handful.cli.failures import when_stopped
from handful.cli.options import (
    DATA,
    EXPERT,
    LARGEST_SEED,
    RESULT,
    TIME,
    AsJson,
    Init,
    Precision,
    Size,
    Source,
    TestFraction,
    pairs,
)
from handful.cli.source_options import SourceOptions, takes_source_options
from handful.cli.verbosity import verbose
from handful.errors import BudgetTooShort, HandfulError

if TYPE_CHECKING:
    from handful.data.imageset import ImageSet
    from handful.pipeline.fit import Target
    from handful.pipeline.options import FitOptions
    from handful.pipeline.run import Run
    from handful.progress import Reporter


SHARES_OF = ("unlabeled", "labels")  # what --prior may take class shares from


@takes_source_options()
def fit(
    source: Source,
    where: SourceOptions,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Images that belong together (frames of one scene, photos of one patient): auto "
            "finds them, folder: those of one folder, or a regular expression for file names.",
            metavar="auto|folder|none|REGEX",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="How common the classes are among new photos; by default as among the labels. "
            "unlabeled: as among the photos without a label.",
            metavar="CLASS=SHARE,...|unlabeled",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    test_fraction: TestFraction = 0.0,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time to try methods and to train, as in 90s, 10m or 1h; 3m by default. Reading "
            "the photos and a first classifier come before it, the report comes after it, and so "
            "do the answers for a large folder. Ctrl-C keeps the best classifier so far.",
            metavar="TIME",
            show_default=False,
            rich_help_panel=TIME,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the result; by default SOURCE-run. The same command goes on with an "
            "unfinished run in it.",
            metavar="FOLDER",
            show_default=False,
            rich_help_panel=RESULT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace another run in --out.", rich_help_panel=RESULT),
    ] = False,
    after: Annotated[
        Path | None,
        typer.Option(
            help="An earlier run, whose labels and settings are kept.",
            metavar="RUN",
            show_default=False,
            rich_help_panel=RESULT,
        ),
    ] = None,
    no_images: Annotated[
        bool,
        typer.Option(
            "--no-images",
            help="Keep no small copies of photos for the report.",
            rich_help_panel=RESULT,
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say how each figure came about.", rich_help_panel=RESULT),
    ] = False,
    as_json: AsJson = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to learn; by default the best for these labels (`handful methods` lists "
            "them).",
            show_default=False,
            rich_help_panel=EXPERT,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network: lite0, lite2 or both, lite0+lite2 (trained on ImageNet), small, "
            "fast, cnn, resnet18, dinov2-s, timm:NAME, ...",
            show_default=False,
            rich_help_panel=EXPERT,
        ),
    ] = None,
    init: Init = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the method, as in --set steps=500.",
            metavar="NAME=VALUE",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    size: Size = None,
    aspect: Annotated[
        str | None,
        typer.Option(
            help="How photos become square: crop (the default), pad or stretch.",
            metavar="crop|pad|stretch",
            show_default=False,
            rich_help_panel=EXPERT,
        ),
    ] = None,
    flips: Annotated[
        bool | None,
        typer.Option(
            "--flips/--no-flips",
            help="Whether a mirrored photo keeps its class; by default only in colour.",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    estimate: Annotated[
        str,
        typer.Option(
            help="folds: estimate the accuracy. none: skip it.",
            metavar="folds|none",
            rich_help_panel=EXPERT,
        ),
    ] = "folds",
    precision: Precision = "auto",
    per_class: Annotated[
        int | None,
        typer.Option(
            help="Hide all but N labels of each class, to try things out.",
            metavar="N",
            show_default=False,
            rich_help_panel=EXPERT,
        ),
    ] = None,
    draw: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="Seed of the labels that --per-class keeps; by default --seed.",
            metavar="N",
            show_default=False,
            rich_help_panel=EXPERT,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="Seed of all random numbers. The result repeats bit for bit where no time "
            "budget sets the number of steps.",
            metavar="N",
            rich_help_panel=EXPERT,
        ),
    ] = 0,
) -> None:
    """Train a classifier on the labelled photos, and classify the others.

    handful fit photos/                        sub-folders are classes
    handful fit photos/ --labels labels.csv    a table of file,label
    handful fit photos/ --budget 15m           more time, better result
    handful fit digits --per-class 10          a data set to try it on

    A first classifier is there within seconds, with an estimate of how often it is right on new
    photos; the rest of the time goes into a better one. Where the folder itself has no labels,
    those in labels.csv here are used, which `handful label photos/` writes. The estimate needs no
    test photos, but labelled photos that were picked at random. Nothing that you made is changed.
    """
    from handful.cli.early_checks import check_choices, check_folders_given, check_run_folder
    from handful.data.source_names import default_run_folder
    from handful.text import in_seconds

    out = out.expanduser() if out is not None else default_run_folder(source)
    before = _saved_run(out)
    when_stopped(lambda: _what_is_left(out, before))
    seconds = None if budget is None else in_seconds(budget)
    settings, shares = pairs(set_ or []), _prior(prior)
    check_choices(method=method, estimate=estimate, precision=precision, aspect=aspect)
    check_run_folder(out)
    if after is not None and (taken_over := _labels_taken_over(where.labels, after, out)):
        where = replace(where, labels=taken_over)
    check_folders_given(where.labels, after, init)
    if overwrite and where.labels is not None and after is None:
        _check_labels_kept(source, where.labels, out)

    with few_collections():
        from handful.cli.terminal import (
            print_json,
            print_run,
            print_skipped,
            reporting,
            say_skipped,
        )
        from handful.pipeline.artifacts import RUN_LAYOUT
        from handful.pipeline.fit import Target
        from handful.pipeline.options import FitOptions, InputSpec
        from handful.pipeline.replacement import finish_replacement

    finish_replacement(out, RUN_LAYOUT)  # before labels and an earlier run are read from there
    job = _Job(
        source,
        where,
        test_fraction,
        None if per_class is None else (per_class, seed if draw is None else draw),
        FitOptions(
            method,
            seed,
            backbone=backbone,
            inputs=InputSpec(size, aspect, flips, precision),
            estimate=estimate,
            prior=shares,
            settings=settings,
            budget=seconds,
            init=init,
            groups=groups,
        ),
        Target(out, overwrite, not no_images),
        after,
    )
    with reporting() as reporter:
        run, images = _run(job, reporter)
        if as_json and images is not None:
            say_skipped(images, reporter.say)
    if as_json:
        print_json(run.record)
        return
    print_run(run, out, source, explain or verbose())
    if images is not None:
        print_skipped(images)


class _Job(NamedTuple):
    """What `handful fit` was asked for."""

    source: str
    where: SourceOptions
    test_fraction: float
    drawn: tuple[int, int] | None  # labels per class that are kept, and the seed of their draw
    options: "FitOptions"
    target: "Target"
    after: Path | None


def _run(job: _Job, reporter: "Reporter") -> "tuple[Run, ImageSet | None]":
    """Fit, score the test part and write the report.

    Returns:
        The run and its images. When the user stops the fit, or the budget is too short for any
        method, the best run so far, and None.
    """
    from handful.pipeline.artifacts import REPORT
    from handful.pipeline.earlier_run import with_earlier_labels
    from handful.pipeline.run_tables import save_label_draw
    from handful.report import leave_report

    out = job.target.out
    assert out is not None
    kept: list[str] = []
    try:
        run, images = _fit(job, reporter, kept)
    except (KeyboardInterrupt, BudgetTooShort) as end:
        best = _best_kept(out, kept)
        if best is None:
            raise
        if isinstance(end, BudgetTooShort):
            reporter.say(
                f"{end}; the first classifier is kept in {out}, and the same command with a larger "
                f"--budget goes on from it"
            )
        leave_report(out, reporter.say)
        return best, None
    if job.drawn is not None:
        labeled = images if job.after is None else with_earlier_labels(images, run)
        save_label_draw(labeled, *job.drawn, out)
    if scored := images.test is not None and run.test is None:
        run.score_test(images.test, reporter.track)
    if scored or not (out / REPORT).exists():
        leave_report(out, reporter.say)
    return run, images


def _fit(job: _Job, reporter: "Reporter", kept: list[str]) -> "tuple[Run, ImageSet]":
    """Load the images and fit; first to the labelled images alone.

    Args:
        kept: gets the fingerprint of the interim run that is in the folder.
    """
    from handful.data.source_names import is_folder
    from handful.pipeline.earlier_run import earlier_groups, how_to_load
    from handful.pipeline.first_result import FIRST_LABELS, first_result
    from handful.pipeline.fit import run_fit
    from handful.pipeline.run import open_run

    options, target, after = job.options, job.target, job.after
    groups, command = options.groups, sys.argv[1:]
    where, boxes, known = job.where, job.where.crops, None
    earlier = None if after is None else open_run(after)
    if earlier is not None:
        boxes, known = how_to_load(earlier, boxes, where.labels, where.folders)
        if groups is None:
            groups = earlier_groups(earlier)  # before a test part is drawn

    def load(labeled_only: int | None = None) -> "ImageSet":
        how: dict[str, Any] = {"seed": options.seed, "labeled": after is None, "groups": groups}
        how |= {"boxes": boxes, "known": known}
        if labeled_only is None:
            how["test_fraction"] = job.test_fraction
        return where.load(job.source, reporter, labeled_only=labeled_only, **how)

    # Only the labelled files are decoded at first, where names alone tell which these are.
    labels = where.labels
    whole = boxes is None  # which crops have a label is not known from names
    from_names = job.drawn is None and not job.test_fraction and is_folder(job.source) and whole
    early = from_names and after is None and (labels is None or labels.expanduser().is_file())

    images = None if early else _as_asked(load(), job, reporter)
    first = first_result(
        lambda: load(FIRST_LABELS) if images is None else images,
        options,
        target,
        reporter,
        command,
        earlier,
    )
    if images is None:
        images = _as_asked(load(), job, reporter)
    if first is not None:
        kept.append(first.record["fingerprint"])
        target = target._replace(improves=first.record["fingerprint"])
    run = run_fit(images, options, target, after=after, reporter=reporter, command=command)
    return run, images


def _as_asked(images: "ImageSet", job: _Job, reporter: "Reporter") -> "ImageSet":
    """Return the images, with a part of their labels where `--per-class` is given."""
    from handful.pipeline.setup import subsample_labels

    if job.after is not None and job.where.labels is not None and not len(images.labeled):
        raise HandfulError(
            f"{job.where.labels} gives no image a label; fill in its column of labels (a "
            f"spreadsheet may have put what you typed into another one), or leave --labels out"
        )
    _tell_missed_labels(job, images, reporter)
    if job.drawn is None:
        return images
    images = subsample_labels(images, *job.drawn)
    drawn = dict.fromkeys(images.names, "random")
    return replace(images, origins={**drawn, **images.origins})


def _tell_missed_labels(job: _Job, images: "ImageSet", reporter: "Reporter") -> None:
    """Say so where labels are at hand that neither the command nor the earlier run has."""
    from handful.data.boxes.crop_store import CropStore
    from handful.data.class_names import normalized
    from handful.data.labels.page_labels import TABLE, page_labels
    from handful.pipeline.artifacts import LABEL_NEXT, RECORD
    from handful.pipeline.earlier_run import read_labels
    from handful.progress import Important

    table = job.where.labels
    told = ""
    if job.after is not None and table is None:
        known, names, store = read_labels(job.after).labels, images.names, images.store
        if isinstance(store, CropStore):  # a label may name a photo
            crops = zip(store.names, store.photos, strict=True)
            known |= {photo: known[crop] for crop, photo in crops if crop in known}
            names = [*names, *set(store.photos)]
        here = page_labels(names, job.source, Path(job.source).expanduser()).labels
        if any(normalized(known.get(name, "")) != label for name, label in here.items()):
            told = f"{TABLE} is here and is not used: with --after, give --labels {TABLE}"
    elif job.after is None and table is not None and table.name == LABEL_NEXT:
        run = table.expanduser().parent
        if (run / RECORD).exists():
            told = f"{table} has new labels only: --after {run} keeps those of that run"
    if told:
        reporter.say(Important(told))


def _saved_run(out: Path) -> bytes | None:
    """The record of the run that a folder holds; None where it holds none."""
    from handful.pipeline.artifacts import RECORD

    try:
        return (out / RECORD).read_bytes()
    except OSError:
        return None


def _what_is_left(out: Path, before: bytes | None) -> str:
    """What a fit that was stopped has left, and how to go on.

    Args:
        before: what `_saved_run` returned when it began.
    """
    from handful.data.source_names import redacted
    from handful.pipeline.artifacts import holds_work
    from handful.text import shell_command

    now = _saved_run(out)
    if now is not None and now != before:
        return f"stopped: a classifier of this fit is saved in {out}"
    there = "no classifier of this fit is saved yet"
    if now is not None:
        there += f", and the one that was in {out} before is still there"
    command = shell_command(*map(redacted, sys.argv[1:]))
    if holds_work(out):
        return (
            f"stopped: {there}; what was done so far is kept, and this goes on with it: {command}"
        )
    return f"stopped: {there}; this starts again: {command}"


def _best_kept(out: Path, kept: list[str]) -> "Run | None":
    """Return the interim run of this command, after it was stopped; None where there is none."""
    from handful.pipeline.artifacts import RUN_LAYOUT
    from handful.pipeline.replacement import finish_replacement
    from handful.pipeline.run import open_run
    from handful.pipeline.run_folder import holds_interim

    finish_replacement(out, RUN_LAYOUT)
    return open_run(out) if kept and holds_interim(out, kept[-1]) else None


def _check_labels_kept(source: str, labels: Path, out: Path) -> None:
    """Raise HandfulError if a new run would replace the run whose label-next.csv it uses.

    The labels of that run would be lost; `--after` keeps them.
    """
    from handful.pipeline.artifacts import LABELS
    from handful.text import shell_command

    if labels.expanduser().resolve().parent == out.resolve() and (out / LABELS).exists():
        again = ("fit", source, "--labels", labels, "--after", out, "--out", out, "--overwrite")
        raise HandfulError(
            f"{labels} belongs to the run in {out}, whose earlier labels, in {out / LABELS}, would "
            f"be lost; continue that run: {shell_command(*again)}"
        )


def _labels_taken_over(labels: Path | None, after: Path, out: Path) -> Path | None:
    """The labels of a new run whose process was killed while it replaced the run in `out`.

    The new run learned from a table of the old run, which was removed with the old run. The new run
    is put in place here, and its own labels stand for the missing table. None: no process was
    killed there, or the table is not missing.
    """
    from handful.pipeline.artifacts import LABELS, RUN_LAYOUT
    from handful.pipeline.replacement import put_in_place_if_begun

    if labels is None or labels.expanduser().exists() or labels.name not in RUN_LAYOUT.artifacts:
        return None
    folders = {folder.expanduser().resolve() for folder in (labels.parent, after, out)}
    if len(folders) > 1 or not put_in_place_if_begun(out, RUN_LAYOUT):
        return None
    return out / LABELS


def _prior(text: str | None) -> dict[str, float] | str | None:
    """Return `cat=0.2,dog=0.8` as a mapping; "labels" and "unlabeled" unchanged."""
    if text in (None, *SHARES_OF):
        return text
    shares: dict[str, float] = {}
    for pair in text.split(","):
        try:
            name, share = pair.rsplit("=", 1)
            shares[name.strip()] = float(share)
        except ValueError:
            raise HandfulError(
                f"--prior takes CLASS=SHARE,..., {' or '.join(SHARES_OF)}, got {text!r}; for "
                f"example --prior cat=0.2,dog=0.8"
            ) from None
    return shares
