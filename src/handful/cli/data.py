"""`handful data`: what is in a source, and what is wrong with it."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import (
    AsJson,
    DataRoot,
    Encoding,
    FollowLinks,
    Labels,
    Source,
    TestFraction,
)
from handful.screen import answer, print_json, reporting


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
            say=reporter.say,
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
