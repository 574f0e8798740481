"""Render a run folder, a comparison or several runs as one HTML file.

The file is self-contained: inline SVG and thumbnails, no scripts and no network. It has a light and
a dark style, and suits screens, phones and paper. It is made from the files of the folder alone.
All text in them is escaped, and no path in them is opened.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from handful.errors import HandfulError
from handful.files import write_text
from handful.output import PAGE, output_target, written
from handful.pipeline.artifacts import REPORT
from handful.text import shell_command

__all__ = ["leave_report", "make_report", "render", "write_report"]


def render(folders: Sequence[Path | str], pictures: bool = True, links: bool = False) -> str:
    """The HTML report of a run, of a comparison, or of several runs side by side.

    HandfulError for a folder that is neither a run nor a comparison, or has a damaged file.

    Args:
        folders: one folder of `handful fit` or `handful compare`, or several folders of runs.
        pictures: include thumbnails of images.
        links: link the other files of the folder, which the page lies in.
    """
    from handful.report.page import page_of  # imports matplotlib, which is slow

    return page_of([Path(folder) for folder in folders], pictures, links)


def write_report(folders: Sequence[Path | str], out: Path | str, pictures: bool = True) -> None:
    """Write the report of `render` to a file; in a run's folder it has links to its files."""
    inside = len(folders) == 1 and Path(out).resolve().parent == Path(folders[0]).resolve()
    write_text(Path(out), render(folders, pictures, inside))


def make_report(
    folders: Sequence[Path | str], out: Path | str | None = None, pictures: bool = True
) -> Path:
    """Write the report of `render` where a user wants it, and return its path.

    Args:
        out: by default report.html in the folder, where there is one folder.

    Raises:
        HandfulError: as `render`; or `out` is a file that handful did not write.
    """
    if out is None and len(folders) > 1:
        raise HandfulError("several runs are shown in one file; name it with --out report.html")
    if out is None:
        target = Path(folders[0]) / REPORT
        write_report(folders, target, pictures)
        return target
    output_target(Path(out), PAGE)
    with written(Path(out)) as whole:
        write_report(folders, whole, pictures)
    return Path(out)


def leave_report(folder: Path | str, say: Callable[[str], None] = lambda text: None) -> None:
    """Write report.html into a finished folder; report a failure through `say` without raising."""
    try:
        write_report([folder], Path(folder) / REPORT)
    except Exception as error:
        say(f"the report could not be written ({error}); try: {shell_command('report', folder)}")
