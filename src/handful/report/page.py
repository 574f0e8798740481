"""Choose the page for one or several folders and render it."""

from collections.abc import Sequence
from pathlib import Path

from handful.errors import HandfulError
from handful.pipeline.artifacts import RECORD
from handful.report import comparison, run
from handful.report.read import read_run
from handful.report.rendering import rendered


def page_of(folders: Sequence[Path], pictures: bool, links: bool = False) -> str:
    """The HTML page of a run, a comparison or several runs.

    HandfulError for a folder that is neither a run nor a comparison, or has a damaged file.
    """
    if not folders:
        raise HandfulError("a report needs a run folder or a comparison at least")
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if len(folders) > 1:
        runs = [read_run(_checked(folder), pictures=False) for folder in folders]
        return rendered("comparison.html", page=comparison.page(comparison.of_runs(runs)))
    (folder,) = folders
    if (_checked(folder) / comparison.RESULT).exists():
        return rendered("comparison.html", page=comparison.page(comparison.of_folder(folder)))
    return rendered("run.html", page=run.page(read_run(folder, pictures), links))


def _checked(folder: Path) -> Path:
    if not (folder / RECORD).exists() and not (folder / comparison.RESULT).exists():
        raise HandfulError(
            f"{folder} holds neither a finished run nor a comparison; give the folder that "
            f"`handful fit` or `handful compare` left"
        )
    return folder
