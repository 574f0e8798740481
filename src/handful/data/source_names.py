"""Names of the public data sets, and a check of a typed source that imports nothing slow."""

import re
from pathlib import Path

from handful.errors import HandfulError
from handful.text import did_you_mean, similar_file

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")
NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "stl10")


def check_source(source: str) -> None:
    """Raise HandfulError unless `source` is a name in NAMES, an address, or a path that exists."""
    if source in NAMES or ADDRESS.match(source) or Path(source).expanduser().exists():
        return
    if "/" in source or "\\" in source:
        raise HandfulError(f"no folder {source!r}; check the path{similar_file(Path(source))}")
    question = did_you_mean(source, NAMES)
    hint = f".{question}" if question else similar_file(Path(source)) or "."
    raise HandfulError(
        f"no source {source!r} and no folder of that name{hint} "
        f"Sources: {', '.join(sorted(NAMES))}, or the path of a folder"
    )


def is_folder(source: str) -> bool:
    """Return whether a typed source is a folder, and no name of a data set."""
    return source not in NAMES and Path(source).expanduser().is_dir()


def default_run_folder(source: str) -> Path:
    """Return where a run on `source` goes unless a folder is given: photos/ → photos-run."""
    if source in NAMES:
        return Path(f"{source}-run")
    if ADDRESS.match(source):
        name = re.sub(r"[?#].*", "", source).rstrip("/").rpartition("/")[2]
        stem = name.partition(".")[0] or name or "photos"
        return Path(f"{re.sub(r'[^A-Za-z0-9_-]', '-', stem)}-run")
    path = Path(source).expanduser()
    whole = path.resolve() if path.name in ("", "..") else path
    if not whole.name:
        raise HandfulError(f"there is no name for a run beside {source}; give --out FOLDER")
    return whole.with_name(f"{whole.stem if whole.is_file() else whole.name}-run")
