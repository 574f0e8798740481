"""The command line: parse, call one function, print. Slow imports wait until they are needed."""

import io
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import handful
from handful.screen import (
    answer,
    print_comparison,
    print_counts,
    print_evaluation,
    print_json,
    print_run,
    print_skipped,
    reporting,
)

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="handful",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Train the best image classifier that a handful of labels allow, and know how good it is.

    Try it: `handful fit digits --per-class 10 --out run/`""",
)
SOURCE_HELP = (
    "A folder of images, or one of: digits, mnist, fashion-mnist, cifar10, stl10. In a folder, "
    "sub-folders are classes; images at the top or in unlabeled/ have no label; train/ and test/ "
    "parts are kept apart."
)
Source = Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="CSV with columns file,label (blank: unlabeled) and perhaps group.", show_default=False
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Where known data sets are, or are downloaded to.",
        envvar="HANDFUL_DATA",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else there.")
]


Size = Annotated[
    int | None,
    typer.Option(
        help="Side in pixels to bring images to; by default their own, at most 64, or what suits "
        "a pre-trained network (160 or 224).",
        show_default=False,
    ),
]
Precision = Annotated[
    str, typer.Option(help="fp32, bf16, or auto: whichever a short measurement finds faster.")
]
TestFraction = Annotated[
    float, typer.Option(help="Share of the labelled images to set aside as the test part.")
]
Encoding = Annotated[str, typer.Option(help="Text encoding of the label file.")]
FollowLinks = Annotated[
    bool, typer.Option(help="Follow symbolic links that lead out of the folder.")
]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"handful {handful.__version__}")
        raise typer.Exit


@app.command()
def fit(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the run. The same command goes on with an unfinished run in it."
        ),
    ],
    labels: Labels = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            help="Hide all but this many labels of each class, drawn by --draw.", show_default=False
        ),
    ] = None,
    draw: Annotated[
        int | None,
        typer.Option(help="Seed of the draw of labels; by default --seed.", show_default=False),
    ] = None,
    test_fraction: TestFraction = 0.0,
    encoding: Encoding = "utf-8",
    follow_links: FollowLinks = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to learn: supervised (the default), features, self_training, propagation "
            "or fine_tuning.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network; by default small, or lite0 (trained on ImageNet) for features. "
            "Others: cnn, mlp, simple-cnn, deep-cnn, cifar-cnn, resnet18, timm:NAME.",
            show_default=False,
        ),
    ] = None,
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
            help="How common the classes are among new images, for the estimate; by default as "
            "among the labels.",
            metavar="CLASS=SHARE,...",
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
    precision: Precision = "auto",
    after: Annotated[
        Path | None,
        typer.Option(
            help="An earlier run: its labels and settings count where no new ones are given.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The run repeats bit for bit with the same seed.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace another run in --out.")] = False,
    data_root: DataRoot = None,
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
    from handful import job
    from handful.after import continued, earlier_settings
    from handful.data.sources import load
    from handful.folder import save_hidden
    from handful.prepare import hide
    from handful.results import open_run

    with reporting() as reporter:
        images = load(
            source,
            labels,
            data_root=data_root,
            test_fraction=test_fraction,
            encoding=encoding,
            follow_links=follow_links,
            seed=seed,
            labeled=after is None,
            track=reporter.track,
        )
        test = images.test
        typed = {"method": method, "backbone": backbone, "size": size, "aspect": aspect}
        typed |= {"flips": flips}
        chosen: dict[str, Any] = {k: value for k, value in typed.items() if value is not None}
        settings, origins, earlier = _pairs(set_ or []), {}, None
        if per_class is not None:
            images = hide(images, per_class, seed if draw is None else draw)
            origins = dict.fromkeys(images.names, "random")
        if after is not None:
            earlier = open_run(after)
            past = continued(images, earlier)
            images, origins = past.images, past.origins
            for text in past.said:
                reporter.say(text)
            before = earlier_settings(earlier, method)
            settings = before.pop("settings") | settings
            chosen = before | chosen
        run = job.fit(
            images,
            **chosen,
            seed=seed,
            out=out,
            overwrite=overwrite,
            precision=precision,
            estimate=estimate,
            prior=_shares(prior) if prior is not None else None,
            settings=settings,
            origins=origins,
            after=earlier,
            reporter=reporter,
            command=sys.argv[1:],
        )
        if per_class is not None:
            save_hidden(images, per_class, seed if draw is None else draw, out)
        if test is not None and run.test is None:
            run.score_test(test, reporter.track)
    if as_json:
        print_json(run.record)
    else:
        print_run(run, out)
        print_skipped(images)


@app.command()
def data(
    source: Source,
    labels: Labels = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for data.html (examples, histogram, pictures of what is wrong) and "
            "data.json (the full list).",
            show_default=False,
        ),
    ] = None,
    near: Annotated[
        bool, typer.Option(help="Look for near-duplicates too, which decodes every image.")
    ] = True,
    test_fraction: TestFraction = 0.0,
    encoding: Encoding = "utf-8",
    follow_links: FollowLinks = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Tell what is in a source and what is wrong with it, before a minute is spent on training.

    Counts per class and part, sizes, colour; unreadable files; identical and almost identical
    images, above all those on both sides of the test boundary; classes with too few labels.

    Example: handful data photos/ --labels labels.csv --out about/
    """
    from handful.data.checks import check
    from handful.data.page import write_page
    from handful.data.sources import load
    from handful.data.summary import summary
    from handful.files import write_json

    with reporting() as reporter:
        images = load(
            source,
            labels,
            data_root=data_root,
            test_fraction=test_fraction,
            encoding=encoding,
            follow_links=follow_links,
            keep_leaks=True,
            labeled=False,
            track=reporter.track,
        )
        findings = check(images, near=near, track=reporter.track)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "data.json", findings.as_json())
            write_page(findings, images, out / "data.html")
    if as_json:
        print_json(findings.as_json())
    else:
        answer.print(summary(findings))
        if out is not None:
            answer.print(f"the whole list is in {out}/data.json, with pictures in {out}/data.html")


@app.command()
def compare(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the cells, one file each. The same command goes on with an "
            "unfinished comparison in it; more draws or methods may be asked for."
        ),
    ],
    per_class: Annotated[int, typer.Option(help="Labels of each class that every cell sees.")],
    methods: Annotated[
        str, typer.Option(help="Their names, with commas between them.")
    ] = "supervised,features,self_training",
    draws: Annotated[int, typer.Option(help="How many draws of labels.")] = 5,
    first_draw: Annotated[int, typer.Option(help="Seed of the first draw.")] = 0,
    labels: Labels = None,
    test_fraction: TestFraction = 0.0,
    encoding: Encoding = "utf-8",
    follow_links: FollowLinks = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="One network for all methods; by default each its own.", show_default=False
        ),
    ] = None,
    size: Size = None,
    estimate: Annotated[
        str,
        typer.Option(
            help="folds: what each fit says of itself, too. none: skip it, which is several times "
            "faster."
        ),
    ] = "folds",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of one method, as in --set supervised.steps=500, or of all.",
            metavar="METHOD.NAME=VALUE",
        ),
    ] = None,
    precision: Precision = "auto",
    seed: Annotated[
        int, typer.Option(help="Of the test part that --test-fraction sets aside.")
    ] = 0,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same draws of labels, each scored once on the test part.

    Shows every draw, and the difference to the first method draw by draw. Intervals hold the
    mean over draws with 90 % chance (Student's t); a single draw has none.

    Example: handful compare digits --per-class 10 --methods supervised,features --out cmp/
    """
    from handful.compare import compare as run_comparison
    from handful.data.sources import load

    with reporting() as reporter:
        images = load(
            source,
            labels,
            data_root=data_root,
            test_fraction=test_fraction,
            encoding=encoding,
            follow_links=follow_links,
            seed=seed,
            track=reporter.track,
        )
        comparison = run_comparison(
            images,
            [name.strip() for name in methods.split(",") if name.strip()],
            range(first_draw, first_draw + draws),
            per_class,
            out,
            estimate=estimate,
            settings=_pairs(set_ or []),
            reporter=reporter,
            backbone=backbone,
            size=size,
            precision=precision,
        )
    if as_json:
        print_json(comparison.as_json())
    else:
        print_comparison(comparison)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="The folder that `handful fit --out` left.")],
    source: Annotated[
        str, typer.Argument(help="A folder of images, one image file, or a data set.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="CSV to write: file, label, confidence, p(class)...", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Copy the images into class folders in here.", show_default=False),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(
            help="Answer only where answers are right this often, as in --abstain 0.95; other "
            "images get no label.",
            show_default=False,
        ),
    ] = None,
    follow_links: FollowLinks = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Classify new images with a run. Any size and colour; folders larger than memory stream.

    Confidence is calibrated on the labels of the run, so with --abstain 0.95 about 19 of 20
    answers are right on images like those.

    Example: handful predict run/ more-photos/ --out predictions.csv
    """
    from handful.data.sources import load
    from handful.results import open_run

    with reporting() as reporter:
        trained = open_run(run)
        if abstain is not None:
            promised = trained.answering(abstain)
            reporter.say(
                f"answers that are right {promised['sure']:.0%} of the time are expected for "
                f"{promised['share']:.0%} of images like the labelled ones; others get no label"
            )
        images = load(
            source,
            data_root=data_root,
            follow_links=follow_links,
            keep_leaks=True,
            labeled=False,
            track=reporter.track,
        )
        if into is not None and not Path(source).exists():
            raise ValueError(f"--into copies files, but {source!r} is a data set without files")
        predictions = trained.predict(images, reporter.track, abstain)
        if out is not None:
            predictions.to_csv(out)
        if into is not None:
            predictions.into_folders(Path(source), into)
    if as_json:
        rows = zip(predictions.names, predictions.labels, predictions.confidence, strict=True)
        keys = ("file", "label", "confidence")
        print_json({"predictions": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif out is None and into is None:
        for name, label, confidence, *_ in predictions.rows():
            print(f"{name}\t{label}\t{confidence}")
    else:
        print_counts(predictions.labels, [str(path) for path in (out, into) if path is not None])
        print_skipped(images)


@app.command()
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
    encoding: Encoding = "utf-8",
    follow_links: FollowLinks = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on labelled images it was not trained on: accuracy with an interval, and more.

    A source with a test part is scored on that part. The figures are printed; --out keeps them,
    with the confusion matrix as a plot.

    Example: handful evaluate run/ labelled-test-photos/ --out scores/
    """
    from handful.data.sources import load
    from handful.evaluate import plot_confusion
    from handful.files import beside, write_json
    from handful.results import open_run

    with reporting() as reporter:
        trained = open_run(run)
        images = load(
            source,
            labels,
            data_root=data_root,
            encoding=encoding,
            follow_links=follow_links,
            labeled=False,
            track=reporter.track,
        )
        if known := trained.trained_on(images.test or images):
            reporter.say(
                f"{known} of these images are among those the run was trained on: "
                f"their accuracy says nothing about new ones"
            )
        found = trained.evaluate(images.test or images, reporter.track)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "evaluation.json", found.as_json())
            with beside(out / "confusion.svg") as path:
                plot_confusion(found, path)
    if as_json:
        print_json(found.as_json())
    else:
        print_evaluation(found)


def main() -> None:
    """Exit status: 0 done, 2 the user can mend it, 1 our fault (traceback), 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be valid Unicode
    try:
        if app(standalone_mode=False) == 130:  # how newer typers report Ctrl-C
            raise KeyboardInterrupt
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped; the same command goes on from the last checkpoint")
        sys.exit(130)
    except Exception as error:
        message = _mendable(error)
        if message is None:
            traceback.print_exc()
            sys.exit(1)
        if os.environ.get("HANDFUL_DEBUG"):
            traceback.print_exc()
        _complain(f"Error: {message}")
        sys.exit(2)


def _mendable(error: Exception) -> str | None:
    """One line for what the user can mend; None for what is our fault."""
    usage = getattr(error, "format_message", None)  # of a mistake in the command line itself
    if usage is not None:
        return f"{usage()} (handful --help tells more)"
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        return f"cannot use{where}: {reason}; check space and permissions"
    return None


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _pairs(texts: list[str]) -> dict[str, str]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise ValueError(f"--set takes NAME=VALUE, got {wrong[0]!r}; for example --set steps=500")
    return dict(text.split("=", 1) for text in texts)


def _shares(text: str) -> dict[str, float]:
    """`cat=0.2,dog=0.8` as a mapping."""
    shares: dict[str, float] = {}
    for pair in text.split(","):
        try:
            name, share = pair.rsplit("=", 1)
            shares[name.strip()] = float(share)
        except ValueError:
            raise ValueError(
                f"--prior takes CLASS=SHARE,..., got {text!r}; for example --prior cat=0.2,dog=0.8"
            ) from None
    return shares


if __name__ == "__main__":
    main()
