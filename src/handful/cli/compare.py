"""`handful compare`: compare methods on common draws of labels."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_cluster
from handful.cli.options import (
    LARGEST_SEED,
    AsJson,
    Init,
    On,
    Precision,
    Size,
    Source,
    TestFraction,
    pairs,
)
from handful.cli.source_options import SourceOptions, takes_source_options
from handful.errors import HandfulError


@takes_source_options()
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
    where: SourceOptions,
    methods: Annotated[
        str, typer.Option(help="Their names, with commas between them.")
    ] = "supervised,features,self_training",
    draws: Annotated[int, typer.Option(max=10_000, help="How many draws of labels.")] = 5,
    first_draw: Annotated[int, typer.Option(min=0, max=10**9, help="Seed of the first draw.")] = 0,
    test_fraction: TestFraction = 0.0,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="One network for all methods; by default each its own.", show_default=False
        ),
    ] = None,
    init: Init = None,
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
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for each fit, as in 90s, 10m or 1h; by default each method's own steps.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    precision: Precision = "auto",
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Of the test part that --test-fraction sets aside."
        ),
    ] = 0,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same draws of labels, each scored once on the test part.

    Shows every draw, and the difference to the first method draw by draw. Intervals hold the
    mean over draws with 90 % chance (Student's t); a single draw has none.

    Example: handful compare digits --per-class 10 --methods supervised,features --out cmp/
    """
    from handful.cli.terminal import print_comparison, print_json, reporting
    from handful.text import in_seconds

    seconds = None if budget is None else in_seconds(budget)
    check_cluster(on)
    if not test_fraction:
        _check_test_part(source, where)

    from handful.pipeline.compare import compare as run_comparison
    from handful.report import leave_report

    with reporting() as reporter:
        images = where.load(source, reporter, test_fraction=test_fraction, seed=seed)
        comparison = run_comparison(
            images,
            [name.strip() for name in methods.split(",") if name.strip()],
            range(first_draw, first_draw + draws),
            per_class,
            out,
            estimate=estimate,
            settings=pairs(set_ or []),
            reporter=reporter,
            backbone=backbone,
            init=init,
            size=size,
            precision=precision,
            budget=seconds,
            command=sys.argv[1:],
            on=on,
        )
        leave_report(out, reporter.say)
    if as_json:
        print_json(comparison.as_json())
    else:
        print_comparison(comparison)


def _check_test_part(source: str, where: SourceOptions) -> None:
    """Raise HandfulError if the names in a folder show that it has no test part."""
    from handful.data.folder_layout import in_test_part
    from handful.data.scan import listing
    from handful.data.source_names import is_folder

    if not is_folder(source):
        return
    names = listing(Path(source).expanduser(), where.follow_links).files.names
    if names and not in_test_part(names):
        raise HandfulError(
            f"{source} has no test part to compare on; set one aside with --test-fraction 0.3"
        )
