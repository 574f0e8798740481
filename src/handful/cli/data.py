"""`handful data`: describe a source of images and list its problems."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.collector import few_collections
from handful.cli.options import (
    AsJson,
    Source,
    TestFraction,
)
from handful.cli.source_options import SourceOptions, takes_source_options
from handful.text import shell_command

if TYPE_CHECKING:
    from handful.data.findings import Findings
    from handful.data.imageset import ImageSet


@takes_source_options()
def data(
    source: Source,
    where: SourceOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for data.html (examples, histogram, pictures of what is wrong) and "
            "data.json (the full list).",
            show_default=False,
        ),
    ] = None,
    near: Annotated[
        bool,
        typer.Option(help="Whether to look for near-duplicates, too; this decodes every image."),
    ] = True,
    first_labels: Annotated[
        int | None,
        typer.Option(
            help="Suggest this many images to label first, in label-first.csv: typical ones, and "
            "some drawn at random. Fill in its labels and give it to fit with --labels.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --first-labels: which are drawn at random.")] = 0,
    test_fraction: TestFraction = 0.0,
    as_json: AsJson = False,
) -> None:
    """Tell what is in a source and what is wrong with it, before a minute is spent on training.

    Counts per class and part, sizes, colour; unreadable files; identical and almost identical
    images, above all those on both sides of the test boundary; classes with too few labels.

    Examples:

        handful data photos/ --labels labels.csv --out about/

        handful data photos/ --first-labels 20
    """
    with few_collections():
        from handful.cli.terminal import answer, print_json, reporting
        from handful.data.checks import check
        from handful.data.source_names import redacted
        from handful.data.vanished import with_the_rest
        from handful.files import write_json
        from handful.output import FINDINGS, PAGE, folder_target
        from handful.report.data_page import write_page
        from handful.report.data_summary import summary

    if out is not None:
        listing = folder_target(out, "data.json", FINDINGS)
        page = folder_target(out, "data.html", PAGE)
    with reporting() as reporter:
        images = where.load(
            source, reporter, test_fraction=test_fraction, keep_leaks=True, labeled=False
        )

        def examine(images: "ImageSet") -> "Findings":
            findings = check(images, near=near, track=reporter.track)
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                write_page(findings, images, page)
                write_json(listing, findings.as_json())
            if listed is not None:
                label_first.save(
                    label_first.first_labels(images, first_labels or 0, seed, reporter), listed
                )
            return findings

        listed = None
        if first_labels is not None:
            from handful.pipeline import label_first  # slow: it imports the networks

            listed = (out or Path()) / label_first.LABEL_FIRST
        findings = with_the_rest(images, examine, reporter.say)
    if as_json:
        print_json(findings.as_json())
    else:
        shown = redacted(source)
        answer.print(summary(findings))
        if out is not None:
            answer.print(f"the whole list is in {out}/data.json, with pictures in {out}/data.html")
        cut = () if where.boxes is None else ("--boxes", where.boxes)
        if listed is not None:
            then = shell_command("fit", shown, *cut, "--labels", listed, "--out", "run/")
            answer.print(
                f"{first_labels} images to label first are in {listed}; fill in what you know, "
                f"then: {then}",
                soft_wrap=True,
            )
        elif not findings.labeled:
            hint = f"as a list: {shell_command('data', shown, *cut, '--first-labels', 20)}"
            if images.store.in_folder and not cut:
                keys = shell_command("label", source)
                hint = f"label them with keys: {keys}; or which to label first, {hint}"
            else:
                hint = f"which to label first, {hint}"
            answer.print(hint, soft_wrap=True)
