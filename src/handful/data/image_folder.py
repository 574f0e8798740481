"""Load a folder of images, with class sub-folders or a label file, as an ImageSet.

`folder_layout.layout` interprets the sub-folders. With a label file only `train/` and `test/` among
them have a meaning.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from handful.data.class_names import normalized
from handful.data.decoding.unread_formats import by_ending
from handful.data.decoding.value_range import fingerprints_at, value_range
from handful.data.facts import facts_table
from handful.data.folder_layout import Place, in_test_part, layout
from handful.data.imageset import ImageSet, sorted_classes
from handful.data.labels.label_file import LabelFile, match_labels
from handful.data.labels.page_labels import TABLE, page_labels
from handful.data.objects.contents import METADATA
from handful.data.objects.files import Objects
from handful.data.objects.find import (
    find,
    find_inside,
    folder_labels,
    is_elsewhere,
    with_stamps,
)
from handful.data.opened import Files, Folder
from handful.data.scan import (
    Found,
    Listing,
    Scan,
    found_files,
    listing,
    scan_file,
    scan_listed,
)
from handful.data.shards import NothingInShard, Shard
from handful.data.source_names import redacted
from handful.data.splits import labeled_sample
from handful.data.store import FileStore, Skipped
from handful.errors import HandfulError
from handful.progress import Important, Track, silent
from handful.text import counted, shell_command, some_names, some_of

MOST_FOLDERS = 1_000  # sub-folders that may be sites
SHOWN = 5  # names of folders that are listed, at most
MANIFEST = ".handful-sorted.json"  # lies in a folder that `predict --into` sorted images into


class EarlierLabels(NamedTuple):
    """Where an earlier run has labels; folders give others only if all are named in `classes`."""

    place: str  # the folder of the run, as it is named in sentences
    classes: tuple[str, ...]  # those of the run, without those whose folders it gave other labels


class Wanted(NamedTuple):
    """How to load a folder."""

    folders: str | None = None  # as in `layout`; None: "auto", but ask only with `training`
    training: bool = False  # whether labels and a training part are required
    every_class: bool = False  # keep test images of classes that no training image has
    # Inspect and return only labelled images of no test part, at most so many; None: all images.
    labeled_only: int | None = None
    seed: int = 0  # of the draw of these
    shard: Shard | None = None  # list all files, and inspect and return only those of this shard
    grouped: bool = False  # whether a rule groups the images, so that folders may mean something
    known: EarlierLabels | None = None  # None: no earlier run has labels


def load_folder(
    source: str,
    labels: LabelFile | None,
    follow_links: bool,
    track: Track,
    *,
    wanted: Wanted | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ImageSet:
    """Load the images of a folder, or one image file; labels may be missing.

    Args:
        source: the path as the user typed it; or an address, an archive, a table or a list.
        follow_links: read symbolic links that lead out of the folder.
        say: receives a sentence on how the folders were interpreted.
    """
    wanted = wanted or Wanted()
    root = Path(source).expanduser()
    if not is_elsewhere(source) and root.is_file():
        files: Files = Folder(root.parent)
        whole = 1
        found, own = scan_file(root), None
        if wanted.shard is not None and not wanted.shard.of_listing(_as_listing(found)).files:
            raise NothingInShard(wanted.shard)
    else:
        asked = labels is None and wanted.folders in (None, "auto") and not wanted.labeled_only
        told = say if asked else silent
        files, listed, own, whole = _listed_part(source, root, follow_links, wanted.shard, told)
        source = redacted(source)  # from here on it is only shown and kept
        part = "" if wanted.shard is None else str(wanted.shard)
        if wanted.labeled_only is not None:
            images = _load_labeled(source, files, labels, listed, own, track, wanted, say)
            images.store.whole = whole
            return images
        found = scan_listed(files, _with_stamps(files, listed, listed.files), track, part=part)
    if not found.files:
        if wanted.shard is not None:
            raise NothingInShard(wanted.shard, found.skipped)
        raise HandfulError(_nothing_found(source, found))
    labels = _given_or_of_page(source, root, found.files.names, labels, own, wanted, say)
    places, unknown = _places(source, root, found, labels, own, wanted, say)
    images = _image_set(source, files, found, places, unknown, wanted.every_class)
    images.store.whole = whole
    return images


class _Listed(NamedTuple):
    """The files of a source or of a shard of it, and what the source says of them."""

    files: Files
    listed: Listing
    own: dict[str, str] | None  # labels by name that the source itself gives
    whole: int  # number of images of the whole source


def _listed_part(
    source: str, root: Path, follow_links: bool, shard: Shard | None, say: Callable[[str], None]
) -> _Listed:
    """`list_source`, or of a shard its files."""
    share = None if shard is None else shard.share
    if shard is None or share is None:
        files, listed, own = list_source(source, root, follow_links, say)
        part = listed if shard is None else shard.of_listing(listed)
        return _Listed(files, part, own, len(listed.files))
    shard.seen(share.listed, share.at)
    return _Listed(share.files, share.listing, None, share.listed.images)


def list_source(
    source: str, root: Path, follow_links: bool, say: Callable[[str], None] = silent
) -> tuple[Files, Listing, dict[str, str] | None]:
    """The files of a source, without a look into them, and the labels that it gives itself."""
    if is_elsewhere(source):
        return find(source)
    check_folder(root, source)
    listed = listing(root, follow_links)
    inside = find_inside(root) if not listed.files else None
    own = None if inside else folder_labels(root)
    if own and own.keys().isdisjoint(listed.files.names):
        say(f"{source}: no file_name in its {METADATA} is that of an image, so it labels none")
        own = None
    return inside or (Folder(root), listed, own)


def _with_stamps(files: Files, listed: Listing, wanted: Iterable[Found]) -> Listing:
    """The listing with sizes and versions of the wanted files, where only a list names them."""
    if not isinstance(files, Objects):
        return listed
    known, missing = with_stamps(files, wanted)
    stamped = {file.name: file for file in known}
    gone = {skipped.name for skipped in missing}
    kept = [stamped.get(file.name, file) for file in listed.files if file.name not in gone]
    return Listing(found_files(kept), [*listed.skipped, *missing], listed.ignored)


def _as_listing(found: Scan) -> Listing:
    return Listing(found.files, found.skipped, found.ignored)


def _load_labeled(
    source: str,
    files: Files,
    labels: LabelFile | None,
    listed: Listing,
    own: dict[str, str] | None,
    track: Track,
    wanted: Wanted,
    say: Callable[[str], None],
) -> ImageSet:
    """Load the labelled training images of a folder; the others are not decoded.

    Args:
        say: receives a sentence where the labels are those of the page.
    """
    every = Scan(listed.files, facts_table([]), listed.skipped, listed.ignored)
    if not every.files:
        raise HandfulError(_nothing_found(source, every))
    root = Path(source).expanduser()
    labels = _given_or_of_page(source, root, listed.files.names, labels, own, wanted, say)
    places, _ = _places(source, root, every, labels, own, wanted, silent)
    chosen = {
        name: place
        for name, place in zip(listed.files.names, places, strict=True)
        if place.label is not None and not place.test and not place.reason
    }
    assert wanted.labeled_only is not None
    named = list(chosen)
    labels_of = [chosen[name].label for name in named]
    drawn = labeled_sample(np.arange(len(named)), labels_of, wanted.labeled_only, wanted.seed)
    names = {named[at] for at in drawn}
    listed = _with_stamps(files, listed, [file for file in listed.files if file.name in names])
    found = scan_listed(files, listed, track, names)
    if not found.files:
        if chosen:
            broken = [skipped for skipped in found.skipped if skipped.name in chosen]
            first = f", such as {broken[0].name}: {broken[0].reason}" if broken else ""
            raise HandfulError(
                f"{source} holds no labelled image that can be read: none of "
                f"{counted(len(chosen), 'image')} with a label{first}"
            )
        everything, in_folder = every.files.names, isinstance(files, Folder)
        raise HandfulError(no_label(source, "no labelled image", everything, in_folder, labels))
    images = _image_set(source, files, found, [chosen[name] for name in found.files.names], [])
    unreadable = len(drawn) - len(found.files)
    images.store.whole_labeled = len(named) - unreadable
    return images


def _given_or_of_page(
    source: str,
    root: Path,
    names: list[str],
    labels: LabelFile | None,
    own: dict[str, str] | None,
    wanted: Wanted,
    say: Callable[[str], None],
) -> LabelFile | None:
    """The label file that was given, or that of the page where nothing else gives a label."""
    if labels is not None or not wanted.training or wanted.folders == "classes":
        return labels
    if own or not root.is_dir():
        return None
    places = layout(names, wanted.folders or "auto").places
    found = page_labels(names, source, root)
    if any(place.label for place in places):
        by_folder = {name: place.label for name, place in zip(names, places, strict=True)}
        if any(normalized(by_folder[name] or "") != label for name, label in found.labels.items()):
            both = shell_command("fit", source, "--after", "RUN", "--labels", TABLE)
            say(
                f"{TABLE} is here and is not used, as the sub-folders of {source} give the labels; "
                f"after this fit, {both} uses both"
            )
        return None
    if found.file is not None:
        say(Important(found.said))
    return found.file


def no_label(
    source: str,
    what: str,
    names: Iterable[str],
    on_this_machine: bool,
    given: LabelFile | None = None,
) -> str:
    """Why a source cannot be learned from, where labels were looked for, and what to do.

    Args:
        what: it holds, such as "1,300 images but no label".
        given: the label file that was asked for.
    """
    if given is not None:
        return (
            f"{source} holds {what}: {given.path} names some of its images, but gives none a "
            f"label; fill in its column of labels"
        )
    table = "a table with the columns file and label (--labels, in Python labels=)"
    if not on_this_machine:
        return f"{source} holds {what}; give {table}"
    looked = page_labels(names, source, Path(source).expanduser())
    where = "" if looked.file else f", and {looked.said}"
    return (
        f"{source} holds {what}{where}; label some ({shell_command('label', source)}), put them "
        f"into one sub-folder per class, or give {table}"
    )


def _places(
    source: str,
    root: Path,
    found: Scan,
    labels: LabelFile | None,
    own: dict[str, str] | None,
    wanted: Wanted,
    say: Callable[[str], None],
) -> tuple[list[Place], list[Skipped]]:
    """The place of each file of a scan, and the label file's rows that cannot be used.

    Args:
        own: labels by name that the source itself gives; None where folders may be classes.
    """
    names = found.files.names
    unknown: list[Skipped] = []
    if labels is None and own is not None and wanted.folders in (None, "auto"):
        places = places_of_source(source, names, own, say)
    elif labels is None and wanted.known is not None:
        places = places_of_known(source, names, wanted, wanted.known, say)
    elif labels is None:
        places = places_by_folder(source, names, wanted, say)
        if (root / MANIFEST).exists() and any(place.label for place in places):
            say(
                f"{source} was sorted by `handful predict --into`, so its folders are predictions: "
                f"accuracy on them says how often models agree. Check the images, and put those "
                f"that you have checked into a folder of their own"
            )
    else:
        places, unknown = places_by_table(found, root, labels, say)
        tell_unused_folders(source, names, places, wanted, say)
        places = folders_beside_table(names, places, wanted.folders)
    return with_plain_labels(places, say), unknown


def places_of_source(
    source: str, names: list[str], own: dict[str, str], say: Callable[[str], None]
) -> list[Place]:
    """The place of each image, with the labels that the source itself gives."""
    labeled = sum(name in own for name in names)
    if labeled:
        say(f"{source}: its own table labels {labeled:,} of {len(names):,} images")
    test = in_test_part(names) if labeled else set()
    return [Place(own.get(name), test=name in own and name in test) for name in names]


def tell_unused_folders(
    source: str, names: list[str], places: list[Place], wanted: Wanted, say: Callable[[str], None]
) -> None:
    """Say that sub-folders beside a label file give no label, unless they are a data set's parts.

    Where all are named like classes of the file, a fit that goes on takes their names as labels.
    Otherwise they may be groups, unless a rule groups the images.
    """
    folders = sorted({name.split("/", 1)[0] for name in names if "/" in name})
    if not wanted.training or wanted.folders not in (None, "auto") or in_test_part(names):
        return
    given = {name: place.label for name, place in zip(names, places, strict=True) if place.label}
    of_folder = labels_by_name(names)
    classes = sorted(set(of_folder.values()))
    if named_like(classes, classes_for_folders(given, given.values())):
        told = (
            f"{source}: its sub-folders ({some_names(classes, SHOWN)}) are named like classes of "
            f"the table, and give no label beside it"
        )
        unlabeled = len(of_folder.keys() - given.keys())
        if not unlabeled:
            say(f"{told}; each image in them has one from the table")
            return
        has, takes = ("has", "that") if unlabeled == 1 else ("have", "those")
        say(
            Important(
                f"{told}, where {counted(unlabeled, 'image')} in them {has} no label; after this "
                f"fit, {shell_command('fit', source, '--after', 'RUN')} without --labels takes "
                f"{takes} from the names of the folders"
            )
        )
    elif 2 <= len(folders) <= MOST_FOLDERS and not wanted.grouped:
        say(
            f"{source}: the labels are in the table, and its {len(folders)} sub-folders give "
            f"none; if they are sites, cameras or patients, --folders groups keeps the images "
            f"of each together"
        )


def labels_by_name(names: Sequence[str]) -> dict[str, str]:
    """The label of each image whose folder would give it one if all folders were classes."""
    found = zip(names, layout(names, "classes").places, strict=True)
    return {name: place.label for name, place in found if place.label is not None}


def classes_for_folders(labels: Mapping[str, str], classes: Iterable[str]) -> tuple[str, ...]:
    """The classes whose names a folder may give: those without an image that is labelled otherwise.

    Args:
        labels: image → label, that a user gave.
    """
    passed = {
        normalized(part)
        for name, label in labels.items()
        for part in PurePosixPath(name).parts[:-1]
        if normalized(part) != normalized(label)
    }
    return tuple(one for one in dict.fromkeys(classes) if normalized(one) not in passed)


def named_like(folders: Iterable[str], classes: Iterable[str]) -> bool:
    """Whether there are folders, and all are named like classes."""
    named = set(map(normalized, folders))
    return bool(named) and named <= set(map(normalized, classes))


def places_of_known(
    source: str,
    names: list[str],
    wanted: Wanted,
    known: EarlierLabels,
    say: Callable[[str], None],
) -> list[Place]:
    """The place of each image where an earlier run has labels.

    Folders that are named like its classes give labels: images were moved into them. Others are
    groups at most.
    """
    folders = sorted(set(labels_by_name(names).values()))
    if folders and wanted.folders in (None, "auto"):
        if named_like(folders, known.classes):
            say(
                Important(
                    f"{source}: its folders ({some_names(folders, SHOWN)}) are named like classes "
                    f"of {known.place}, so the images in them have these labels; --folders ignore "
                    f"takes none from them (in Python load(..., folders=...))"
                )
            )
            return places_by_folder(source, names, wanted._replace(folders="classes"), say)
        say(
            f"{source}: no label is taken from its folders ({some_names(folders, SHOWN)}): the "
            f"labels are those of {known.place}; --folders classes takes these names as labels, "
            f"--folders groups keeps the images of each together (in Python load(..., folders=...))"
        )
    return folders_beside_table(names, [Place()] * len(names), wanted.folders)


def places_by_folder(
    source: str, names: list[str], wanted: Wanted, say: Callable[[str], None]
) -> list[Place]:
    """The place of each image, from its path alone."""
    found = layout(names, wanted.folders or "auto")
    if found.question and (wanted.training or wanted.folders == "auto"):
        raise HandfulError(f"{source}: {found.question} (in Python load(..., folders=...))")
    no_training = found.no_training.replace("SOURCE", source.rstrip("/"))
    if no_training and wanted.training:
        raise HandfulError(f"{source} is not what to train on: {no_training}")
    if found.question:
        say(f"{source}: no label is taken from its folders, as {found.question}")
    elif found.said:
        missing = "; no training part" if found.no_training else ""
        say(f"{source}: {found.said}{missing}")
    return found.places


def folders_beside_table(names: list[str], places: list[Place], folders: str | None) -> list[Place]:
    """Apply --folders where a label file gives the labels."""
    if folders == "classes":
        raise HandfulError(
            "--folders classes takes the labels from the folders and --labels from a file; "
            "leave one of them out"
        )
    if folders == "ignore":
        return [place._replace(test=False) for place in places]
    if folders == "groups" and not any(place.group for place in places):
        by_folder = layout(names, "groups").places
        return [
            place._replace(group=other.group)
            for place, other in zip(places, by_folder, strict=True)
        ]
    return places


def with_plain_labels(places: list[Place], say: Callable[[str], None]) -> list[Place]:
    """Places with normalised labels; tells the user which spellings became one class."""
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    different = set(places)
    for place in different:
        if place.label is not None:
            spellings[normalized(place.label)].add(place.label)
    for name, forms in sorted(spellings.items()):
        if name and len(forms) > 1:
            say(
                f"{len(forms)} spellings of {name!r} that look the same are one class: "
                f"{', '.join(ascii(form) for form in sorted(forms))}"
            )
    plain = {place: place._replace(label=normalized(place.label or "") or None)
             for place in different}  # fmt: skip
    return [plain[place] for place in places]


def places_by_table(
    found: Scan, root: Path, labels: LabelFile, say: Callable[[str], None]
) -> tuple[list[Place], list[Skipped]]:
    """The place of each image, from the label file, and the file's rows that cannot be used."""
    names = found.files.names
    broken = {skipped.name for skipped in found.skipped} - set(names)
    matched = match_labels(labels, [*names, *broken], root, say)
    if not set(names) & matched.rows.keys():
        raise HandfulError(
            f"none of the images named in {labels.path} can be read; the first is "
            f"{next(iter(matched.rows))}: {found.skipped[0].reason}"
        )
    lost = sorted(repr(name) for name in broken if (row := matched.rows.get(name)) and row.label)
    if lost:
        images = counted(len(lost), "labelled image")
        say(Important(f"{images} of {labels.path} cannot be read: {some_of(lost, 3)}"))
    test = in_test_part(names)
    places = []
    for name in names:
        row = matched.rows.get(name)
        label, group = (row.label, row.group) if row else (None, None)
        origin = row.origin if row and row.label else None
        stands = row is not None and row.confirmed
        in_test = label is not None and name in test
        places.append(Place(label, group, in_test, origin=origin, confirmed=stands))
    return places, matched.unused


def _image_set(
    source: str,
    files: Files,
    found: Scan,
    places: list[Place],
    unknown: list[Skipped],
    every_class: bool = False,
) -> ImageSet:
    left_out = [
        Skipped(name, place.reason)
        for name, place in zip(found.files.names, places, strict=True)
        if place.reason
    ]
    store = file_store(files, found, [*found.skipped, *left_out, *unknown])
    return placed(source, store, places, every_class)


def placed(
    source: str, store: FileStore, places: list[Place], every_class: bool = False
) -> ImageSet:
    """The images of a store at their places; those with a reason to be left out are left out."""
    labeled = [place for place in set(places) if place.label]
    by_folder = bool(labeled) and all(place.by_folder for place in labeled)
    number = {place: at for at, place in enumerate(dict.fromkeys(places))}
    kinds, kind = list(number), np.array([number[place] for place in places], np.int64)
    used = np.array([not place.reason for place in kinds], bool)[kind]
    of_test = np.array([place.test for place in kinds], bool)[kind]
    train, test = np.flatnonzero(used & ~of_test), np.flatnonzero(used & of_test)
    naming = np.concatenate([train, test]) if every_class else train
    classes = sorted_classes({kinds[at].label for at in np.unique(kind[naming])} - {None})
    index = {name: at for at, name in enumerate(classes)}
    class_of = np.array([index.get(place.label or "", -1) for place in kinds], np.int64)
    foreign = test[class_of[kind[test]] < 0]
    store.skipped += tuple(
        Skipped(store.names[row], f"no training image of its class: {places[row].label}")
        for row in foreign.tolist()
    )
    test = np.setdiff1d(test, foreign)
    labels = class_of[kind]
    groups = group_numbers([place.group for place in places])
    origins = {
        name: place.origin for name, place in zip(store.names, places, strict=True) if place.origin
    }
    confirmed = frozenset(
        name for name, place in zip(store.names, places, strict=True) if place.confirmed
    )

    def part(rows: np.ndarray, test: ImageSet | None = None) -> ImageSet:
        chosen = None if groups is None else groups[rows]
        return ImageSet(
            store,
            rows,
            labels[rows],
            classes,
            chosen,
            source,
            test,
            origins,
            confirmed=confirmed,
            labels_by_folder=by_folder,
        )

    return part(train, part(test) if len(test) else None)


def file_store(files: Files, found: Scan, skipped: list[Skipped]) -> FileStore:
    """A store of the readable files of a scan."""
    facts = found.facts
    scale = value_range(facts.ranges)
    return FileStore(
        names=found.files.names,
        fingerprints=fingerprints_at(scale, facts.fingerprints, facts.deep),
        sizes=facts.sizes,
        grey=facts.grey,
        skipped=tuple(skipped),
        other=found.ignored,
        files=files,
        stamps=found.files.stamps,
        notes=tuple(map(facts.treatments.__getitem__, facts.notes.tolist())),
        file_fingerprints=facts.fingerprints,
        deep=facts.deep,
        blank=facts.blank,
        value_range=scale,
    )


def group_numbers(names: list[str | None]) -> np.ndarray | None:
    """Group number of each image, or None without groups; an image without a name is alone."""
    if not any(names):
        return None
    number = {name: index for index, name in enumerate(sorted({name for name in names if name}))}
    alone = len(number)
    return np.array(
        [number[name] if name else alone + row for row, name in enumerate(names)], np.int64
    )


def check_folder(root: Path, source: str) -> None:
    """HandfulError unless the folder is there and can be opened."""
    if not root.exists():
        raise HandfulError(f"no folder {source!r}; check the path")
    if not root.is_dir():
        raise HandfulError(
            f"{source} is neither a folder nor a regular file; give a folder of images"
        )
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise HandfulError(f"cannot open the folder {source}: {error.strerror}") from error


def _nothing_found(source: str, found: Scan) -> str:
    if not found.skipped:
        others = by_ending(found.ignored)
        return f"{source} holds no image" + (f"; it has {others}" if others else "")
    first = found.skipped[0]
    return (
        f"{source} holds no image that can be read; {len(found.skipped)} left out, the first is "
        f"{first.name}: {first.reason}"
    )
