"""Names of the public data sets, and a check of a typed source that imports nothing slow."""

import re
from pathlib import Path

from handful.errors import HandfulError
from handful.text import did_you_mean, similar_file

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.+", re.DOTALL)
_WITHIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>]+")  # addresses within a text
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")  # where a name before an @ is a part of the place
NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "stl10")


def check_source(source: str) -> None:
    """Raise HandfulError unless `source` is a name in NAMES, an address, or a path that exists."""
    check_not_empty(source)
    if source in NAMES or ADDRESS.match(source) or Path(source).expanduser().exists():
        return
    question = did_you_mean(source, NAMES)
    if "/" in source or "\\" in source or (Path(source).suffix and not question):
        what = "file" if Path(source).suffix and not source.endswith(("/", "\\")) else "folder"
        raise HandfulError(f"no {what} {source!r}; check the path{similar_file(Path(source))}")
    hint = f".{question}" if question else similar_file(Path(source)) or "."
    raise HandfulError(
        f"no source {source!r} and no folder of that name{hint} "
        f"Sources: {', '.join(sorted(NAMES))}, or the path of a folder"
    )


def check_not_empty(source: str) -> None:
    """Raise HandfulError for empty text, which would be the folder here if it were a path."""
    if not source:
        raise HandfulError("the source is empty text; give the path of a folder (. is this one)")


def is_folder(source: str) -> bool:
    """Return whether a typed source is a folder, and no name of a data set."""
    return source not in NAMES and Path(source).expanduser().is_dir()


def source_name(source: str) -> str:
    """The last part of a path or an address, without query; a name of a data set as it is.

    >>> source_name("s3://bucket/photos.zip?versionId=3"), source_name("my/photos/")
    ('photos.zip', 'photos')
    """
    if ADDRESS.match(source):
        path = re.split(r"[?#]", redacted(source), maxsplit=1)[0]
        return path.rstrip("/").rpartition("/")[2]
    return Path(source).name or source


def redacted(text: str) -> str:
    """An address as it may be shown and kept: without user, password and values of its query.

    In another text all addresses are so changed; one with blanks is known by its beginning only.

    >>> redacted("https://me:secret@example.org/a.zip?key=1&sign=2")
    'https://example.org/a.zip?key=...&sign=...'
    """
    if ADDRESS.fullmatch(text):
        return "::".join(_redacted(part) for part in text.split("::"))
    return redacted_within(text)


def redacted_within(text: str) -> str:
    """As `redacted`, of a text that may begin with an address and go on."""
    if "://" not in text:  # the search takes the square of the length of one long word
        return text
    return _WITHIN.sub(lambda found: _redacted(found[0]), text)


def _redacted(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    end = next((at for at, letter in enumerate(rest) if letter in "/?#"), len(rest))
    place, rest = rest[:end], rest[end:]
    if scheme.lower() not in _CONTAINERS:
        place = place.rpartition("@")[2]
    rest, mark, query = rest.partition("?")
    if scheme.lower() in ("http", "https"):
        rest = rest.partition("#")[0]
    values = [f"{key}=..." if is_value else "..." for key, is_value, _ in
              (pair.partition("=") for pair in query.split("&"))]  # fmt: skip
    return f"{scheme}://{place}{rest}" + (mark + "&".join(values) if query else "")


def default_run_folder(source: str) -> Path:
    """Return where a run on `source` goes unless a folder is given: photos/ → photos-run."""
    if source in NAMES:
        return Path(f"{source}-run")
    if ADDRESS.match(source):
        name = source_name(source)
        stem = name.partition(".")[0] or name or "photos"
        return Path(f"{re.sub(r'[^A-Za-z0-9_-]', '-', stem)}-run")
    path = Path(source).expanduser()
    whole = path.resolve() if path.name in ("", "..") else path
    if not whole.name:
        raise HandfulError(f"there is no name for a run beside {source}; give --out FOLDER")
    return whole.with_name(f"{whole.stem if whole.is_file() else whole.name}-run")
