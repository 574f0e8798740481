"""Put a labelling page together: images, earlier labels, journal, and what the folders mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from handful.csv_files import read_csv
from handful.data.class_names import normalized
from handful.data.folder_layout import check_folders, in_test_part, layout
from handful.data.labels.columns import CONFIRMED, MARK
from handful.data.labels.page_labels import TABLE
from handful.data.source_names import default_run_folder
from handful.errors import HandfulError
from handful.files import read_json
from handful.labeling.fitting import EARLIER, RECORD, RUNS, Fitting, runs_of
from handful.labeling.journal import Journal
from handful.labeling.label_table import digest, for_annotator, is_own, read_labels
from handful.labeling.learner import Learner
from handful.labeling.marks import LABEL, ORIGINS, Mark
from handful.labeling.photos import FolderPhotos, Photos
from handful.labeling.server import Page
from handful.labeling.session import RANDOM_EVERY, Session
from handful.pipeline.artifacts import LABEL_NEXT
from handful.text import FEW, counted

KEYS = "123456789qwertyuiopasdfghjklzxcvbnm"  # of the classes, in their order
ANSWERS = ("classes", "groups", "ignore")


@dataclass(frozen=True)
class Wanted:
    """What was typed after `handful label`."""

    source: str
    labels: Path | None = None  # by default labels.csv in the present folder
    run: Path | None = None  # by default that of `fit`, or one beside it: `run_folder`
    overwrite: bool = False  # whether Done may replace any run in `run`
    after: Path | None = None
    classes: tuple[str, ...] = ()
    folders: str = "auto"
    annotator: str = ""
    follow_links: bool = False


@dataclass(frozen=True)
class FromFolders:
    """What the names of folders say of the images."""

    marks: dict[str, Mark]
    groups: dict[str, str]
    hidden: frozenset[int]
    question: str = ""


def open_page(
    wanted: Wanted,
    say: Callable[[str], None] = lambda text: None,
    photos: Photos | None = None,
    known: Mapping[str, Mark] | None = None,
) -> Page:
    """The page of a folder, with the labels that are known; nothing is decoded or trained yet.

    Args:
        photos: the images, where they are not those of the folder `wanted.source`.
        known: their labels, for those images.

    Raises:
        HandfulError: the folder or the label file is not usable, the folder for the run holds
            another one, or another process labels.
    """
    check_folders(wanted.folders)
    if wanted.overwrite and wanted.run is None:
        raise HandfulError("--overwrite is for a run in --run; give --run, too")
    if wanted.after is not None:
        _check_whole(wanted.after)
    if photos is None:
        photos = FolderPhotos(wanted.source, wanted.follow_links)
    given = wanted.labels or Path(TABLE)
    table = _own_table(given, wanted.annotator, say)
    journal = Journal(table.with_name(f"{table.name}.journal"))
    table_lost = not table.exists() and any(e["do"] == "written" for e in journal.events)
    try:
        folders = wanted.folders
        kept = {e["key"]: e["value"] for e in journal.events if e["do"] == "set"}
        folders = kept.get("folders", "auto") if folders == "auto" else folders
        options = fit_options(wanted, folders)
        made = runs_of(e["value"] for e in journal.events if e["do"] == "set" and e["key"] == RUNS)
        fitting = Fitting(
            wanted.source, table, wanted.run, options, wanted.after, made, wanted.overwrite
        )
        start, groups = _earlier(wanted, given, table, fitting.run, photos, say, table_lost)
        found = from_folders(photos.names, folders, labels_given=bool(start))
        named = from_folders(photos.names, "classes", labels_given=False).marks
        session = Session(
            photos.names,
            journal,
            table,
            start={**(known or {}), **start},
            groups={**found.groups, **groups},
            hidden=found.hidden,
            classes=wanted.classes,
            annotator=wanted.annotator,
            by_folder=found.marks,
            named=named,
            no_classes=folders in ("groups", "ignore"),
        )
    except BaseException:
        journal.close()
        raise
    session.unreadable, session.say = photos.unreadable, say
    if table_lost:
        say(f"{table} was missing and is made again from {journal.path}")
    if session.removed:
        say(
            f"{counted(session.removed, 'label')} of an earlier session were names of sub-folders, "
            f"which are no classes with --folders {folders}, and are removed"
        )
    if message := _rewritten(table, session):
        say(message)
    if message := _unusual(fitting.run, wanted):
        say(message)
    learner = Learner(session, photos, say)

    def answer(folders: str) -> None:
        now = from_folders(photos.names, folders, labels_given=False)
        session.take_folders(now.marks, now.groups, now.hidden)
        fitting.options = fit_options(wanted, folders)

    about: dict[str, Any] = {
        "source": wanted.source,
        "question": found.question,
        "keys": keys_of(session.marks.classes),
        "annotator": wanted.annotator,
        "figure": FEW,
        "random_every": RANDOM_EVERY,
    }
    return Page(session, photos, learner, fitting, about, answer)


def keys_of(classes: Sequence[str]) -> str:
    """The keys of the classes, in their order, and of those that come later.

    Classes that are named after keys, such as digits, have these; others have KEYS.
    """
    own = [name.lower() for name in classes]
    if not own or not all(len(name) == 1 and name in f"0{KEYS}" for name in own):
        return KEYS
    return "".join([*own, *(key for key in KEYS if key not in own)])


def _rewritten(table: Path, session: Session) -> str:
    """What becomes of a label file that the page has not written; empty if it has, or is new."""
    if not table.exists() or digest(table) in session.marks.written:
        return ""
    state = session.state()
    return (
        f"{table} stays as it is until you give a label here; then it is written anew with all "
        f"{counted(state['labels'], 'label')}, sorted by file, with columns that say how each "
        f"label came about (origin, seen, mark)"
    )


def _unusual(run: Path, wanted: Wanted) -> str:
    """Say where the page's run goes if it is neither asked for nor where `fit` puts its own."""
    if wanted.run is not None or wanted.after is not None:
        return ""
    usual = default_run_folder(wanted.source)
    if run == EARLIER != usual:
        return f"Done goes on with {run}, where an earlier version put its run"
    return "" if run == usual else f"{usual} is another run and stays: Done makes {run}"


def _check_whole(run: Path) -> None:
    """Raise HandfulError if the labels of a run are of crops, which the page does not show."""
    path = run / RECORD
    record = read_json(path) if path.exists() else None
    data = record.get("data") if isinstance(record, dict) else None
    if isinstance(data, dict) and data.get("boxes") is not None:
        raise HandfulError(
            f"{run} learned from crops, and `handful label` shows whole photos; leave --after out, "
            f"or label the crops in {run / LABEL_NEXT} and give it to fit with --labels, "
            f"--boxes and --after"
        )


def fit_options(wanted: Wanted, folders: str) -> list[str]:
    """Options that `fit` needs to see the images as the page does."""
    options = ["--folders", "ignore"] if folders == "ignore" else []
    if wanted.follow_links:
        options.append("--follow-links")
    if wanted.after is not None:
        options += ["--after", str(wanted.after)]
    return options


def from_folders(names: Sequence[str], folders: str, labels_given: bool) -> FromFolders:
    """Labels, groups and hidden images (a test part) by the names of folders.

    Args:
        labels_given: labels come from elsewhere, so that folders give none.
    """
    if not any("/" in name for name in names) or folders == "ignore":
        return FromFolders({}, {}, frozenset())
    if labels_given and folders in ("auto", "ignore"):
        test = in_test_part(names)
        return FromFolders({}, {}, frozenset(n for n, name in enumerate(names) if name in test))
    found = layout(names, folders)
    plain = cache(normalized)  # few folders, many images
    marks, groups, hidden = {}, {}, set()
    for number, (name, place) in enumerate(zip(names, found.places, strict=True)):
        label = plain(place.label or "")
        if label and not labels_given:
            marks[name] = Mark(LABEL, label)
        if place.group:
            groups[name] = place.group
        if place.test or place.reason:
            hidden.add(number)
    return FromFolders(marks, groups, frozenset(hidden), found.question)


def _own_table(given: Path, annotator: str, say: Callable[[str], None]) -> Path:
    """The label file that is written: the given one, unless it is not the page's to replace."""
    given = given.expanduser()
    if annotator:
        return for_annotator(given, annotator)
    if given.exists() and not is_own(given):
        table = given.with_name(f"{given.stem}-labelled.csv")
        say(
            f"{given} has columns that are not handful's, and stays as it is; its labels are taken "
            f"over, and all labels are written to {table}"
        )
        return table
    return given


def _earlier(
    wanted: Wanted,
    given: Path,
    table: Path,
    made: Path,
    photos: Photos,
    say: Callable[[str], None],
    lost: bool,
) -> tuple[dict[str, Mark], dict[str, str]]:
    """The labels to start with: of the run to go on from, then of the label file.

    Args:
        made: the folder of the page's own run.
        lost: whether the label file is missing, and can be made again.
    """
    marks: dict[str, Mark] = {}
    groups: dict[str, str] = {}
    run = wanted.after
    if run is None and not given.exists() and not table.exists():
        run = made if (made / RECORD).exists() else None
    if run is not None:
        known, here = labels_of_run(run), set(photos.names)
        marks = {name: mark for name, mark in known.items() if name in here}
        gone = len(known) - len(marks)
        others = f"; {gone} more are of images that are not in {wanted.source}" if gone else ""
        say(f"{counted(len(marks), 'label')} taken over from {run}{others}")
        if (run / LABEL_NEXT).exists():
            say(
                f"the page chooses the images anew after each label, so they are others than in "
                f"{run / LABEL_NEXT}"
            )
    elif wanted.labels is not None and not (lost or given.exists() or table.exists()):
        say(f"{table} is new")
    for path in dict.fromkeys((given, table)):
        if path.exists():
            more, of_group = read_labels(path, photos.names, photos.root, say)
            marks |= more
            groups |= of_group
    return marks, groups


def labels_of_run(run: Path) -> dict[str, Mark]:
    """The labels of a run folder, by the names of the images; HandfulError if it has none."""
    path = run / TABLE
    if not path.exists():
        raise HandfulError(f"{path} is missing; is {run} a run folder?")
    marks = {}
    for row in read_csv(path):
        origin, label = row.get("origin", ""), normalized(row.get("label", ""))
        origin = origin if origin in ORIGINS else "unknown"
        if label:
            stands = row.get(MARK) == CONFIRMED
            marks[row["file"]] = Mark(LABEL, label, origin, confirmed=stands)
    return marks
