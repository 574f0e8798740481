"""Folders → the one page that shows them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from handful.data.findings import valid_unicode
from handful.errors import HandfulError
from handful.pipeline.artifacts import RECORD
from handful.report import comparison, run, sentences
from handful.report.read import read_run


def page_of(folders: Sequence[Path], pictures: bool) -> str:
    """HandfulError where a folder is no run or comparison, or does not hold what it should."""
    if not folders:
        raise HandfulError("a report needs a run folder or a comparison at least")
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if len(folders) > 1:
        runs = [read_run(_checked(folder), pictures=False) for folder in folders]
        return _filled("comparison.html", page=comparison.page(comparison.of_runs(runs)))
    (folder,) = folders
    if (_checked(folder) / comparison.RESULT).exists():
        return _filled("comparison.html", page=comparison.page(comparison.of_folder(folder)))
    return _filled("run.html", page=run.page(read_run(folder, pictures)))


def _checked(folder: Path) -> Path:
    if not (folder / RECORD).exists() and not (folder / comparison.RESULT).exists():
        raise HandfulError(
            f"{folder} holds neither a finished run nor a comparison; give the folder that "
            f"`handful fit` or `handful compare` left"
        )
    return folder


def _filled(template: str, **values: Any) -> str:
    return valid_unicode(_templates().get_template(template).render(**values))


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("handful.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    words = (sentences.percent, sentences.points, sentences.span, sentences.time, sentences.listed)
    more = (sentences.sentence, sentences.counted)
    templates.filters |= {word.__name__: word for word in (*words, *more)}
    return templates
