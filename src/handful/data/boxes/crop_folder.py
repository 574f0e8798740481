"""Load the crops of a folder of photos, given a file of boxes, as an ImageSet.

Labels come from a label file, which may name crops or photos; else from the boxes; else from a
metadata.csv in the folder; else from its sub-folders. A label of a photo is that of its crop where
it has one, and of no crop where it has several: nobody knows which of them is meant. Crops of one
photo are in one group.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from handful.data.boxes.crop_store import Crop, CropStore, Detected, crop_store, cut_out
from handful.data.boxes.formats import MOST_IN_A_PHOTO, BoxFile, Detection, Photo, read_boxes
from handful.data.boxes.options import PADDING, Boxes, crop_name
from handful.data.folder_layout import Place, in_test_part
from handful.data.grouping.rules import joined
from handful.data.image_folder import (
    Wanted,
    check_folder,
    folders_beside_table,
    group_numbers,
    placed,
    places_by_folder,
    places_of_known,
    places_of_source,
    tell_unused_folders,
    with_plain_labels,
)
from handful.data.imageset import ImageSet
from handful.data.labels.label_file import LabelFile, Row, match_labels
from handful.data.labels.match_files import EXACT, FileMatcher, Match, prefix_of
from handful.data.objects.find import containers_in, folder_labels
from handful.data.opened import Folder
from handful.data.scan import Found, Listing, found_files, listing, scan_listed
from handful.data.skipped import Skipped
from handful.errors import HandfulError
from handful.progress import Track
from handful.text import counted, some_of

CROPS = "crops"  # what groups rest on
SHOWN = 3  # names in a sentence
Say = Callable[[str], None]


def load_crops(
    source: str,
    boxes: Boxes,
    labels: LabelFile | None,
    follow_links: bool,
    track: Track,
    *,
    wanted: Wanted,
    say: Say,
) -> ImageSet:
    """Load the crops of a folder of photos, or of one photo; photos without a box are not decoded.

    Boxes that give no crop, photos that are missing, and photos that the file does not name are
    listed in `store.skipped`; `store.detected` says what each photo has.

    Args:
        source: the path as the user typed it.
        labels: a label file that names crops, or photos.

    Raises:
        HandfulError: the file of boxes cannot be read, or names no photo of the folder; or there is
            no crop, and labels are required.
    """
    root, listed = _listed(source, follow_links)
    file = read_boxes(boxes.path)
    detected, size_of, skipped = _matched(file, boxes, root, listed)
    if Path(source).expanduser().is_file():
        skipped = []  # that the file names other photos, too, is no news
    used = {photo: some for photo in detected.photos if (some := _used(photo, detected, skipped))}
    files = Folder(root)
    found = scan_listed(files, listed, track, set(used))
    here = set(found.files.names)
    detected.unreadable.update(
        (name, reason) for name, reason in found.skipped if name in used and name not in here
    )
    crops: list[Crop] = []
    for name, facts in zip(found.files.names, found.facts, strict=True):
        more, without = cut_out(name, facts, used[name], size_of.get(name), detected)
        crops += more
        skipped += without
    detected.cut.update((crop.name, crop.relative) for crop in crops)
    if not crops and wanted.training:
        raise HandfulError(_no_crop(source, detected, skipped))
    _tell(detected, crops, skipped, say)
    store = crop_store(files, found, crops, detected)
    places, unknown = _places(source, root, store, listed, labels, wanted, say)
    left_out = [
        Skipped(name, place.reason)
        for name, place in zip(store.names, places, strict=True)
        if place.reason
    ]
    store.skipped = (*found.skipped, *skipped, *left_out, *unknown)
    images = placed(source, store, places, wanted.every_class)
    return _grouped(images, store, places)


def _listed(source: str, follow_links: bool) -> tuple[Path, Listing]:
    """The folder, and the files in it that may be photos; only the one that was given, if so."""
    root = Path(source).expanduser()
    if root.is_file():
        status = root.stat()
        one = Found(root.name, status.st_size, status.st_mtime_ns)
        return root.parent, Listing(found_files([one]), [], Counter())
    check_folder(root, source)
    listed = listing(root, follow_links)
    if not listed.files and (packed := [path.name for path in containers_in(root)]):
        raise HandfulError(
            f"{source} holds no photo but {some_of(packed, SHOWN)}, and boxes are for photos in a "
            f"folder; unpack the photos into a folder, and give that folder"
        )
    return root, listed


def _matched(
    file: BoxFile, boxes: Boxes, root: Path, listed: Listing
) -> tuple[Detected, dict[str, tuple[int, int]], list[Skipped]]:
    """Match the photos of a file of boxes to those of a folder.

    Returns:
        what is detected in each photo, the size that boxes in pixels are for, by photo, and the
        photos that are missing.
    """
    here = listed.files.names
    matcher = FileMatcher([*here, *(name for name, _ in listed.skipped)], root, file.path.parent)
    found = [(photo, matcher.find(photo.file)) for photo in file.photos]
    doubtful = _doubtful(found, root)
    photos: defaultdict[str, list[Detection]] = defaultdict(list)
    failures: dict[str, str] = {}
    size_of: dict[str, tuple[int, int]] = {}
    skipped = []
    for photo, match in found:
        if match and len(match.names) > 1:
            reason = f"several photos may be meant: {', '.join(match.names[:SHOWN])}"
            skipped.append(Skipped(photo.file, reason))
        elif match is None:
            skipped.append(Skipped(photo.file, f"only in the file of boxes: {file.path}"))
        elif photo.file in doubtful:
            skipped.append(Skipped(photo.file, doubtful[photo.file]))
        elif photo.failure:
            failures[match.names[0]] = photo.failure
        else:
            name = match.names[0]
            photos[name] += photo.detections
            if photo.size is not None:
                size_of[name] = photo.size
    failures = {name: why for name, why in failures.items() if not photos.get(name)}
    for name in failures:
        photos.pop(name, None)  # listed twice, and no box in either
    if not photos and not failures:
        first = f" (the first is {file.photos[0].file!r})" if file.photos else ""
        if why := next(iter(doubtful.items()), None):
            first = f" ({why[0]!r}: {why[1]})"
        raise HandfulError(
            f"none of the {len(file.photos):,} photos named in {file.path} is an image in "
            f"{root}{first}; paths must be relative to the folder or to that file"
        )
    unnamed = tuple(name for name in here if name not in photos and name not in failures)
    skipped += [Skipped(name, f"not in the file of boxes: {file.path}") for name in unnamed]
    detected = Detected(
        of=file,
        photos={name: photos[name] for name in sorted(photos)},
        failures=failures,
        unnamed=unnamed,
        unreadable={name: reason for name, reason in listed.skipped if name in photos},
        cut={},
        min_confidence=file.recommended if boxes.min_confidence is None else boxes.min_confidence,
        padding=PADDING if boxes.padding is None else boxes.padding,
        square=boxes.square is not False,
    )
    return detected, size_of, skipped


def _doubtful(found: list[tuple[Photo, Match | None]], root: Path) -> dict[str, str]:
    """Photos in the file of boxes that may be others than those of the folder: file → the reason.

    The end of a path is enough where all that are found by it have the same folders before it, as
    those of another machine do. These must not be a folder beside the one that is loaded.
    """
    matched = {p.file: m for p, m in found if m and len(m.names) == 1}
    prefixes = {
        file: prefix_of(file, match.names[0]) for file, match in matched.items() if not match.whole
    }
    strange = {prefix for prefix in prefixes.values() if prefix[0]}
    here = root.resolve().name
    own = {one for one in strange if not one[1] and one[0].rpartition("/")[2] == here}
    sure = own if len(own) == 1 else strange
    if len(sure) > 1 or any(match.whole for match in matched.values()):
        sure = set()
    elif not own:
        beside = _folders_beside(root) if sure else set()
        sure = {one for one in sure if one[0].rpartition("/")[2] not in beside}
    doubtful = {
        file: "it may be of another folder: only the end of its path is in this one"
        for file, prefix in prefixes.items()
        if prefix in strange and prefix not in sure
    }
    of_photo: defaultdict[str, list[str]] = defaultdict(list)
    for file, match in matched.items():
        if file not in doubtful:
            of_photo[match.names[0]].append(file)
    for name, files in of_photo.items():
        if len(files) > 1:
            exact = [file for file in files if matched[file].rule == EXACT]
            others = [file for file in files if exact != [file]]
            doubtful |= dict.fromkeys(others, f"several names in the file may mean {name}")
    return doubtful


def _folders_beside(root: Path) -> set[str]:
    """Names of what is in the folder above."""
    try:
        return {path.name for path in root.resolve().parent.iterdir()}
    except OSError:
        return set()


def _used(photo: str, detected: Detected, skipped: list[Skipped]) -> list[tuple[int, Detection]]:
    """The boxes of a photo that are used, with their numbers; boxes that are none are listed."""
    used = []
    for number, one in enumerate(detected.photos[photo], 1):
        if one.unused:
            skipped.append(Skipped(crop_name(photo, number), f"no crop: {one.unused}"))
        elif one.confidence >= detected.min_confidence:
            if detected.of.only in (None, one.category):
                used.append((number, one))
    if len(used) <= MOST_IN_A_PHOTO:
        return used
    best = sorted(used, key=lambda pair: -pair[1].confidence)
    skipped += [
        Skipped(
            crop_name(photo, number), f"no crop: more than {MOST_IN_A_PHOTO:,} boxes in one photo"
        )
        for number, _ in best[MOST_IN_A_PHOTO:]
    ]
    return sorted(best[:MOST_IN_A_PHOTO])


def _tell(detected: Detected, crops: Sequence[Crop], skipped: Sequence[Skipped], say: Say) -> None:
    """Say what the file was taken for, and what it gives."""
    file = detected.of
    with_crop = len({crop.file for crop in crops})
    boxes = [one for some in detected.photos.values() for one in some if not one.unused]
    unsure = sum(one.confidence < detected.min_confidence for one in boxes)
    others = Counter(
        one.category
        for one in boxes
        if one.confidence >= detected.min_confidence and file.only not in (None, one.category)
    )
    units = "" if file.format != "CSV" else ", relative" if file.relative else ", in pixels"
    text = (
        f"taking {file.path} for boxes of {file.format}{units}: {counted(len(crops), 'crop')} of "
        f"{counted(with_crop, 'photo')}, and {counted(len(detected.photos) - with_crop, 'photo')} "
        f"without"
    )
    if unsure:
        text += f"; boxes below {detected.min_confidence:g} are not used: {unsure:,}"
    if others:
        named = some_of([f"{name} {n:,}" for name, n in others.most_common()], SHOWN)
        text += f"; boxes that are no {file.only} are not classified: {named}"
    say(text)
    if several := [
        skip for skip in skipped if skip.reason.startswith("no crop: the boxes are for")
    ]:
        first = several[0]
        say(f"{counted(len(several), 'crop')} left out, such as {first.name}: {first.reason}")


def _no_crop(source: str, detected: Detected, skipped: Sequence[Skipped]) -> str:
    because = next((one for one in skipped if one.reason.startswith("no crop")), None)
    first = f"; the first box that is none is {because.name}: {because.reason}" if because else ""
    return (
        f"{detected.of.path} has no box of a confidence of {detected.min_confidence:g} or more for "
        f"a photo in {source}, so there is nothing to learn from; try a lower --min-confidence"
        f"{first}"
    )


def _places(
    source: str,
    root: Path,
    store: CropStore,
    listed: Listing,
    labels: LabelFile | None,
    wanted: Wanted,
    say: Say,
) -> tuple[list[Place], list[Skipped]]:
    """The place of each crop, and what cannot be used of the labels."""
    names, several = store.names, _with_several(store)
    unknown: list[Skipped] = []
    if labels is None and (wanted.folders == "classes" or not store.detected.of.labelled):
        if not names:
            return [], []
        whole = wanted.folders in (None, "auto") and Path(source).expanduser().is_dir()
        own = folder_labels(root) if whole else None
        if own is not None:
            places = places_of_source(source, store.photos, own, say)
        elif wanted.known is not None:
            places = places_of_known(source, names, wanted, wanted.known, say)
        else:
            places = places_by_folder(source, names, wanted, say)
        places, unknown = _only_where_one(store, places, several)
        return with_plain_labels(places, say), unknown
    test = in_test_part(names)
    if labels is None:
        given = [_label_of(store, row) for row in range(len(names))]
        places = [
            Place(label, test=label is not None and name in test)
            for name, label in zip(names, given, strict=True)
        ]
    else:
        photos = listed.files.names + [name for name, _ in listed.skipped]
        matched = match_labels(labels, [*names, *photos], root, say)
        places, unknown = _from_rows(store, matched.rows, several, test)
        unknown = [*matched.unused, *unknown]
        if store.detected.of.labelled:
            say(f"labels are those of {labels.path}, and those in {store.detected.of.path} are not")
    tell_unused_folders(source, names, places, wanted, say)
    return with_plain_labels(folders_beside_table(names, places, wanted.folders), say), unknown


def _with_several(store: CropStore) -> dict[str, int]:
    """Photo → number of its crops, for photos that have more than one."""
    return {photo: n for photo, n in Counter(store.photos).items() if n > 1}


def _label_of(store: CropStore, row: int) -> str | None:
    number = int(store.names[row].rpartition("#")[2])
    return store.detected.photos[store.photos[row]][number - 1].label


def _only_where_one(
    store: CropStore, places: list[Place], several: dict[str, int]
) -> tuple[list[Place], list[Skipped]]:
    """The places by folder, without the labels of photos that have several crops."""
    unclear: dict[str, Skipped] = {}
    kept = []
    for photo, place in zip(store.photos, places, strict=True):
        if place.label is not None and photo in several:
            unclear[photo] = _unclear(photo, place.label, several[photo])
            reason = "of a test photo with several crops and one label" if place.test else ""
            place = place._replace(label=None, test=False, reason=place.reason or reason)
        kept.append(place)
    return kept, list(unclear.values())


def _from_rows(
    store: CropStore, rows: dict[str, Row], several: dict[str, int], test: set[str]
) -> tuple[list[Place], list[Skipped]]:
    """Places by a label file that names crops or photos."""
    unclear: dict[str, Skipped] = {}
    places = []
    for name, photo in zip(store.names, store.photos, strict=True):
        whole, own = rows.get(photo), rows.get(name)
        group = next((row.group for row in (own, whole) if row and row.group), None)
        row = own if own and own.label else whole
        if row is whole and row and row.label and photo in several:
            unclear[photo] = _unclear(photo, row.label, several[photo])
            row = None
        label = row.label if row else None
        origin = row.origin if row and label else None
        stands = row is not None and row.confirmed
        in_test = label is not None and name in test
        places.append(Place(label, group, in_test, origin=origin, confirmed=stands))
    known = {*store.photos, *store.names}
    without = [
        Skipped(name, f"labelled, and without a crop: {row.label!r}")
        for name, row in rows.items()
        if row.label and name not in known
    ]
    return places, [*unclear.values(), *without]


def _unclear(photo: str, label: str, crops: int) -> Skipped:
    return Skipped(
        photo,
        f"one label and several crops: {label!r} may be any of {crops}, left unlabelled; label the "
        f"crops ({photo}#1, ...)",
    )


def _grouped(images: ImageSet, store: CropStore, places: list[Place]) -> ImageSet:
    """The images with the crops of a photo in one group, and with the groups of the source."""
    if not len(store.names):
        return images
    given = group_numbers([place.group for place in places])
    before = np.arange(len(store.names)) if given is None else given
    groups = joined(before, list(store.photos))
    by = CROPS if given is None else "source"
    test = images.test
    if test is not None:
        test = replace(test, groups=groups[test.rows], grouped_by=by)
    return replace(images, groups=groups[images.rows], grouped_by=by, test=test)
