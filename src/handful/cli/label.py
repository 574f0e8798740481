"""`handful label`: a page on this machine to label images, while a classifier learns."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import AllowNetwork, Host
from handful.cli.source_options import Folders, FollowLinks
from handful.text import for_terminal, shell_command


def label(
    source: Annotated[str, typer.Argument(help="A folder of images.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Label file that is written, and whose labels are the start if it exists; by "
            "default labels.csv here.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run that the button Done makes; by default SOURCE-run, as of fit, "
            "or SOURCE-run-2 if another run is there. Done replaces only a run that a page with "
            "this label file began.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Let Done replace another run in --run."),
    ] = False,
    after: Annotated[
        Path | None,
        typer.Option(help="An earlier run: its labels and settings go on.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Classes in the order of their keys, as in cat,dog; the page takes more.",
            show_default=False,
        ),
    ] = None,
    folders: Folders = "auto",
    annotator: Annotated[
        str,
        typer.Option(
            help="Your name, where several people label: the labels go to labels-NAME.csv, and "
            "`handful labels merge` puts them together.",
            metavar="NAME",
            show_default=False,
        ),
    ] = "",
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write one page with thumbnails instead, for a machine without handful; its "
            "labels download as a CSV that fit reads.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="Images in --export, drawn at random.", min=1)] = 500,
    port: Annotated[int, typer.Option(help="Port of the page; 0: a free one.", min=0)] = 0,
    host: Host = "127.0.0.1",
    allow_network: AllowNetwork = False,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Only print the address."),
    ] = True,
    follow_links: FollowLinks = False,
) -> None:
    """Label images with keys, on a page that learns as you go and tells how good it is.

    Keys 1 to 9 give the class and go on. A part of the images is drawn at random and shown
    without a suggestion: the estimate counts only those. Every label is on disk before it is
    answered; start the same command again to go on. `handful fit` finds the labels in labels.csv.

    Examples:

        handful label photos/

        handful label photos/ --classes cat,dog --labels labels.csv --run photos-run/
    """
    from handful.labeling.serve import check_host, serve
    from handful.labeling.start import Wanted, open_page

    def say(text: str) -> None:
        print("\n".join(map(for_terminal, text.splitlines())), file=sys.stderr, flush=True)

    check_host(host, port, allow_network)
    if export is not None:
        from handful.labeling.static_page import export_page

        count = export_page(source, export, _listed(classes), most, follow_links)
        say(f"{count} images are in {export}; open it in a browser, and give the file that it "
            f"downloads to fit with --labels")  # fmt: skip
        return
    if host not in ("127.0.0.1", "localhost", "::1"):
        say("the connection is not encrypted: others in this network can see the images")
    wanted = Wanted(
        source, labels, run, overwrite, after, _listed(classes), folders, annotator, follow_links
    )
    page = open_page(wanted, say)
    serve(page, host, port, browser, say)
    from handful.labeling.session import summary

    say(summary(page.session))
    if page.session.table.exists():
        say(f"next: {shell_command(*fit_words(source, page.session.table, after))}")


def fit_words(source: str, table: Path, after: Path | None) -> list[object]:
    """The words of the `fit` command that learns from a table, beside the runs that are there."""
    from handful.data.source_names import default_run_folder
    from handful.output import next_folder

    words: list[object] = ["fit", source, "--labels", table]
    if after is not None:
        return [*words, "--after", after, "--out", next_folder(after)]
    usual = default_run_folder(source)
    return [*words, "--out", next_folder(usual)] if usual.exists() else words


def _listed(classes: str | None) -> tuple[str, ...]:
    return tuple(name for part in (classes or "").split(",") if (name := part.strip()))
