"""The report: a run folder, or a comparison, as one HTML file made for a person.

Self-contained (inline SVG and thumbnails, no script, no network), light and dark, for screen, phone
and paper. Made from the files of a folder alone: what they say is escaped, and nothing they name
is opened.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from handful.files import write_text
from handful.pipeline.artifacts import REPORT

__all__ = ["leave_report", "render", "write_report"]


def render(folders: Sequence[Path | str], pictures: bool = True) -> str:
    """The report as text: of a run, of a comparison, or of several runs side by side.

    ValueError says which folder is neither, or which file in it is damaged.
    """
    from handful.report.page import page_of  # draws: slow to import, and only needed here

    return page_of([Path(folder) for folder in folders], pictures)


def write_report(folders: Sequence[Path | str], out: Path | str, pictures: bool = True) -> None:
    """Write the report of `render` to a file; without pictures for private photos."""
    write_text(Path(out), render(folders, pictures))


def leave_report(folder: Path | str, say: Callable[[str], None] = lambda text: None) -> None:
    """Write report.html into a finished folder. A failure is said, not raised: the run is safe."""
    try:
        write_report([folder], Path(folder) / REPORT)
    except Exception as error:
        say(f"the report could not be written ({error}); try: handful report {folder}")
