"""Names of the public data sets, and a check of a typed source that imports nothing slow."""

from pathlib import Path

from handful.errors import HandfulError
from handful.text import did_you_mean, similar_file

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "stl10")


def check_source(source: str) -> None:
    """Raise HandfulError unless `source` is a name in NAMES, or a path that exists."""
    if source in NAMES or Path(source).expanduser().exists():
        return
    if "/" in source or "\\" in source:
        raise HandfulError(f"no folder {source!r}; check the path{similar_file(Path(source))}")
    question = did_you_mean(source, NAMES)
    hint = f".{question}" if question else similar_file(Path(source)) or "."
    raise HandfulError(
        f"no source {source!r} and no folder of that name{hint} "
        f"Sources: {', '.join(sorted(NAMES))}, or the path of a folder"
    )
