"""Interpret folder names: find the class, the group and the part of each image from its path.

`layout` uses names alone. It descends into a single folder that holds everything, knows training,
validation and test parts by their usual names, and takes sub-folders as classes. Where folders are
ambiguous, it returns a question (`Layout.question`) that `--folders` answers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from handful.data.class_names import normalized
from handful.errors import HandfulError
from handful.text import some_names

FOLDERS = ("auto", "classes", "groups", "ignore")
UNLABELED = {"unlabeled", "unlabelled"}
PLAIN = {"images", "image", "imgs", "img", "photos", "pictures", "pics", "jpegimages", "data"}
STRAY = {"sample", "samples", "example", "examples", "doc", "docs", "assets", "misc", "figures",
         "plots", "logs", "output", "outputs", "results", "predictions", "sample submission",
         "single prediction", "pred", "seg pred", "notebooks", "screenshots"}  # fmt: skip
PART_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "evaluation"),
    "test": ("test", "testing", "tst", "tests"),
}
KINDS = {word: kind for kind, words in PART_WORDS.items() for word in words}
FILL = PLAIN | {"set", "dataset", "split", "part", "folder", "imageset", "the"}
# 2024-01, 20240131, 100APPLE
_DATED = re.compile(r"(19|20)\d\d[-_. ]?(0[1-9]|1[0-2])([-_. ]?\d\d)?|\d{3}[A-Z_]{5}")
# site-1, camera_02, Patient 7, plotB
_SITE = re.compile(
    r"(site|camera|cam|location|plot|station|trap|patient|subject|visit)s?[-_. ]?(\d+|[a-z])",
    re.IGNORECASE,
)
# plant_A, cam-2, Standort B, site1, halleA: a stem, then what counts its places
_COUNTED = re.compile(
    r"(?P<stem>.*?[^\W\d_])(?:[-_.# ]*\d+[a-z]?|[-_.# ]+[^\W\d_]\d*|(?<=[a-z])[A-Z])",
    re.DOTALL,
)
# Words that say themselves that a counted name is a class, and WordNet's numbers (n01440764).
_CLASS_WORDS = {"class", "klasse", "classe", "clase", "category", "label", "type", "kind",
                "digit", "letter", "grade", "species"}  # fmt: skip
_WORDNET = re.compile(r"n\d{8}")
_YEAR = re.compile(r"(19|20)\d\d")
NAMED = 5  # names listed in a sentence, at most


class Place(NamedTuple):
    """What a path says about an image: its label, its group and its part."""

    label: str | None = None
    group: str | None = None
    test: bool = False
    reason: str = ""  # why it is left out; empty if it is used
    origin: str | None = None  # how the image was picked for labelling: "random", "chosen" or None
    confirmed: bool = False  # whether the label was looked at again, and stands
    by_folder: bool = False  # whether the label is the name of a folder


@dataclass(frozen=True)
class Layout:
    """The place of each image, and how the folders were interpreted."""

    places: list[Place]
    said: str = ""  # the interpretation, in one sentence for the user
    question: str = ""  # asked where the folders are ambiguous; labels are then None
    no_training: str = ""  # why the images should not be trained on; empty if they may be


class _Image(NamedTuple):
    """An image that stands for all images directly in its folder: their names mean nothing."""

    at: int  # number of the folder
    path: tuple[str, ...]  # folders, then the file name
    n: int  # images


def layout(paths: Iterable[str], folders: str = "auto") -> Layout:
    """Interpret the folders of images.

    Args:
        paths: relative paths of images, with forward slashes.
        folders: "classes": the top folders are the classes. "groups": the top folders are groups
            that must not be split (sites, cameras, patients), and the folders below them are the
            classes. "ignore": folders give no labels. "auto": decide, and ask where both are
            possible.
    """
    check_folders(folders)
    number: dict[str, int] = {}
    of = [number.setdefault(path.rpartition("/")[0], len(number)) for path in paths]
    inside = Counter(of)
    images = [_Image(at, (*folder.split("/"), "") if folder else ("",), inside[at])
              for folder, at in number.items()]  # fmt: skip
    found = _layout(images, folders)
    return replace(found, places=[found.places[at] for at in of])


def _layout(images: list[_Image], folders: str) -> Layout:
    """The layout with the place of each folder."""
    places: dict[int, Place] = {}
    if folders == "ignore":
        return Layout([Place() for _ in images])
    images, outside = _unwrapped(images)
    parts = _parts(_by_top(images), folders)
    if parts.question:
        return Layout([Place() for _ in range(len(images) + len(outside))], "", parts.question)
    images = [_part_first(image, parts) for image in images]
    strays = {image.path[0] for image in outside if len(image.path) > 1}
    beside = [image for image in outside if len(image.path) == 1]
    for top, members in _by_top(images).items() if parts.of else ():
        if top not in parts.of and top.lower() not in UNLABELED:
            strays.add(top)
            outside += members
    places |= {i.at: Place(reason="beside the folders that hold the data set") for i in outside}
    places |= {i.at: Place() for i in images if parts.of and i.at not in places}
    question, inner = "", set[str]()
    for members, test in _members(images, parts):
        inner |= _inside_classes(members)
        question = question or ("" if folders != "auto" else _question(members))
        places |= {i.at: _place(i.path, folders, test) for i in members}
    ordered = [places[at] for at in range(len(places))]
    if question:
        kept = [Place(test=p.test, reason=p.reason) if p.reason else Place() for p in ordered]
        return Layout(kept, "", question)
    said = _said(ordered, parts, sorted(strays), sum(i.n for i in beside), folders)
    if inner and folders == "auto":
        said += f"; {_nested(sorted(inner))}"
    return Layout(ordered, said, "", parts.no_training)


def check_folders(folders: str | None) -> None:
    """HandfulError unless `folders` is None or one of FOLDERS."""
    if folders is not None and folders not in FOLDERS:
        raise HandfulError(f"no folders={folders!r}; it is one of {', '.join(FOLDERS)}")


def part_of(name: str) -> str | None:
    """The part that a folder's name means, such as "train" for "training_set", or None."""
    words = [word for word in _words(name) if word not in FILL and not _YEAR.fullmatch(word)]
    kinds = {_kind(word) for word in words}
    return kinds.pop() if len(kinds) == 1 else None


def in_test_part(paths: Sequence[str]) -> set[str]:
    """The paths that lie in the test part of a data set that has a training part."""
    places = layout(paths, "classes").places
    return {path for path, place in zip(paths, places, strict=True) if place.test}


def _kind(word: str) -> str | None:
    """The part that one word means: "train" for "train", "trainset" or "trainimages"."""
    ends = (fill for fill in sorted(FILL) if word.endswith(fill))
    return next((KINDS[w] for w in (word, *map(word.removesuffix, ends)) if w in KINDS), None)


class _Parts(NamedTuple):
    """Which folders are the training and the test part."""

    of: Mapping[str, str] = MappingProxyType({})  # top folder → "train" or "test"
    second: bool = False  # parts lie below the classes: cat/train, cat/test
    no_training: str = ""
    question: str = ""


def _parts(tops: dict[str, list[_Image]], folders: str) -> _Parts:
    """Find the folders that are the training and the test part."""
    kinds = _kinds(tops)
    found = set(kinds.values())
    others = [top for top in tops if top not in kinds and top.lower() not in UNLABELED]
    if not found:
        return _parts_below(tops)
    if len(found) == 1 and others:
        if folders == "classes" or not any(_folders_in(tops[top]) for top in kinds):
            return _Parts()  # a class has the name of a part
        if not all(" ".join(_words(top)) in STRAY for top in others):
            return _Parts(question=_beside(sorted(kinds), sorted(others)))
    if "train" in found:
        test = "test" if "test" in found else "val"
        return _Parts({top: "test" if kind == test else "train" for top, kind in kinds.items()})
    names = _listed(f"{top}/" for top in sorted(kinds))
    first = min(kinds, key=lambda top: (kinds[top] == "test", top))
    no_training = (
        f"it has {names} and no training part; name the folder to train on, such as "
        f"SOURCE/{first}, or put those images into a folder train/"
    )
    only = len(found) == 1
    of = {top: "test" if kind == "test" and not only else "train" for top, kind in kinds.items()}
    return _Parts(of, no_training=no_training)


def _kinds(tops: dict[str, list[_Image]]) -> dict[str, str]:
    """Top folder → its part, for names that mean a part; "seg_train" does so beside "seg_test"."""
    exact = {top: kind for top in tops if (kind := part_of(top))}
    if exact:
        return exact
    by_rest: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for top in tops:
        words = _words(top)
        if len(found := {kind for word in words if (kind := _kind(word))}) == 1:
            by_rest[" ".join(word for word in words if not _kind(word))][top] = found.pop()
    whole = [kinds for kinds in by_rest.values() if len(set(kinds.values())) > 1]
    return whole[0] if len(whole) == 1 else {}


def _parts_below(tops: dict[str, list[_Image]]) -> _Parts:
    """Find parts below the classes: cat/train, cat/test, dog/train, dog/test."""
    kinds: dict[str, str] = {}
    for top, members in tops.items():
        below = _folders_in(members)
        if top.lower() in UNLABELED:
            continue
        if not below or any(len(i.path) == 2 for i in members) or not all(map(part_of, below)):
            return _Parts()
        kinds |= {name: part_of(name) or "" for name in below}
    found = set(kinds.values())
    if "train" not in found or len(found) < 2:
        return _Parts()
    test = "test" if "test" in found else "val"
    of = {name: "test" if kind == test else "train" for name, kind in kinds.items()}
    return _Parts(of, second=True)


def _part_first(image: _Image, parts: _Parts) -> _Image:
    """Turn cat/train/1.png into train/cat/1.png where the parts lie below the classes."""
    if not parts.second or len(image.path) < 3 or image.path[1] not in parts.of:
        return image
    top, part, *rest = image.path
    return image._replace(path=(part, top, *rest))


def _unwrapped(images: list[_Image]) -> tuple[list[_Image], list[_Image]]:
    """Descend into the folder that holds everything; return its images and those beside it.

    A folder that holds the parts (train/ and test/) counts even if other folders lie beside it.
    """
    outside: list[_Image] = []
    while images:
        tops = _by_top(images)
        whole = [top for top in tops if _holds_parts(tops[top])]
        if len(whole) == 1 and not _kinds(tops):
            only = whole[0]
        elif len(tops) == 1 and all(len(image.path) > 1 for image in images):
            only = next(iter(tops))
            if part_of(only) or not _wraps(only, images):
                break
        else:
            break
        inner = tops[only]
        outside += [image for image in images if image.path[0] != only or len(image.path) == 1]
        images = [_below(image) for image in inner]
    return images, outside


def _wraps(only: str, images: list[_Image]) -> bool:
    """Whether a single top folder wraps the data set and is no class."""
    if only.lower() in UNLABELED:
        return False
    below = _folders_in(images)
    loose = any(len(image.path) == 2 for image in images)
    if only.lower() in PLAIN:
        return True
    return len(below) > 1 or (len(below) == 1 and not loose)


def _holds_parts(members: list[_Image]) -> bool:
    below = _by_top([_below(image) for image in members])
    found = set(_kinds(below).values())
    return "train" in found and len(found) > 1


def _members(images: list[_Image], parts: _Parts) -> list[tuple[list[_Image], bool]]:
    """The images of the training part and of the test part, with paths relative to each part."""
    if not parts.of:
        return [(images, False)]
    inside: dict[bool, list[_Image]] = {False: [], True: []}
    tops = {top: members for top, members in _by_top(images).items() if top in parts.of}
    for top in sorted(tops, key=lambda top: parts.of[top] == "test"):
        members = [_below(image) for image in tops[top]]
        classes = set(_by_top(inside[False]))
        inside[parts.of[top] == "test"] += _inside_part(top, members, classes)
    return [(inside[False], False), (inside[True], True)]


def _inside_part(top: str, members: list[_Image], classes: set[str]) -> list[_Image]:
    """Paths relative to the class folders of a part: cat/1.png for test_set/test_set/cat/1.png."""
    while members:
        only, *others = _by_top(members) or [""]
        if others or any(len(image.path) == 1 for image in members):
            break
        if only in classes or only.lower() in UNLABELED:
            break
        wraps = only in (top, *PLAIN) or part_of(only) or len(_folders_in(members)) > 1
        if not wraps:
            break
        members = [_below(image) for image in members]
    return members


def _question(members: list[_Image]) -> str:
    """The question to ask where folders may be no classes, or "".

    Their names are dates or sites, or equally named folders lie in several of them.
    """
    below: dict[str, set[str]] = {}
    tops = {t: m for t, m in _by_top(members).items() if t.lower() not in UNLABELED}
    if tops and all(_DATED.fullmatch(top) for top in tops):
        return (
            f"the folders {_listed(sorted(tops))} are named like dates, or as cameras name theirs: "
            f"--folders ignore if they are no classes (labels then come from --labels, or from "
            f"folders that you make for the classes), --folders classes if they are"
        )
    for top, inside in tops.items():
        loose = sum(image.n for image in inside if len(image.path) == 2)
        if 10 * loose < sum(image.n for image in inside):
            below[top] = {normalized(name).casefold() for name in _folders_in(inside)}
    shared = {
        name
        for top, names in below.items()
        for name in names
        if any(name in others for other, others in below.items() if other != top)
    }
    sharing = [top for top, names in below.items() if names & shared]
    if len(shared) < 2 or len(sharing) < 2 or 2 * len(sharing) <= len(tops):
        return _named_like_sites(sorted(tops))
    first, second = sorted(sharing)[:2]
    return (
        f"the same sub-folders ({_listed(sorted(shared))}) are in {_listed(sorted(sharing))}: "
        f"which are the classes? --folders groups if they are {_listed(sorted(shared))} (and "
        f"{first}, {second} are groups, such as sites), --folders classes if they are "
        f"{_listed(sorted(sharing))}, --folders ignore for neither"
    )


def _named_like_sites(tops: list[str]) -> str:
    """The question to ask where all folders are named like sites, or by one stem; or ""."""
    if len(tops) < 2:
        return ""
    sites = all(_SITE.fullmatch(top) for top in tops)
    if sites:
        like = "are named like sites or patients"
    elif _stem(tops):
        like = "differ in a letter or a number only, as sites, cameras or patients do"
    else:
        return ""
    return (
        f"the folders {_listed(tops)} {like}. If they are no classes, label some images (handful "
        f"label) or give a table with --labels, and --folders groups keeps the images of each "
        f"together; --folders classes if they are classes"
    )


def _stem(tops: list[str]) -> str:
    """What all names begin with, where only a letter or a number follows; or ""."""
    if all(_WORDNET.fullmatch(top) for top in tops):
        return ""
    found = [_COUNTED.fullmatch(normalized(top)) for top in tops]
    stems = {match["stem"].casefold() if match else "" for match in found}
    stem = stems.pop()
    return "" if stems or stem in _CLASS_WORDS else stem


def _inside_classes(members: list[_Image]) -> set[str]:
    """Names of the folders inside class folders."""
    return {i.path[1] for i in members if len(i.path) > 2 and i.path[0].lower() not in UNLABELED}


def _nested(inner: list[str]) -> str:
    return (
        f"folders inside them do not count ({_listed(inner)}): if those are the classes, move them "
        f"up, beside each other, or give --labels; --folders classes if all is right"
    )


def _beside(parts: list[str], others: list[str]) -> str:
    return (
        f"{_listed(f'{top}/' for top in parts)} holds sub-folders as a part of a data set does, "
        f"and {_listed(f'{top}/' for top in others)} beside it may be classes; --folders classes "
        f"if all of them are, else give the folder {parts[0]}/ alone or move the others away"
    )


def _place(path: tuple[str, ...], folders: str, test: bool) -> Place:
    loose = len(path) == 1 or path[0].lower() in UNLABELED
    group = None
    if folders == "groups" and not loose:
        group, path = path[0], path[1:]
        loose = len(path) == 1 or path[0].lower() in UNLABELED
    reason = "a test image without a class folder" if loose and test else ""
    return Place(None if loose else path[0], group, test, reason, by_folder=not loose)


def _said(
    places: list[Place], parts: _Parts, strays: list[str], loose_strays: int, folders: str
) -> str:
    """The interpretation of the folders, in one sentence."""
    classes = sorted({normalized(p.label) for p in places if p.label and not p.reason})
    train = sorted(top for top, kind in parts.of.items() if kind == "train")
    test = sorted(top for top, kind in parts.of.items() if kind == "test")
    of = f" of {_listed(f'{top}/' for top in train)}" if train and not parts.second else ""
    said = []
    if classes:
        folder = "sub-folder" if len(classes) == 1 else "sub-folders"
        number = "1 class" if len(classes) == 1 else f"{len(classes)} classes"
        said.append(f"{number} from the {folder}{of}: {_listed(classes)}")
    elif of:
        said.append(f"images{of} without class folders")
    if folders == "groups":
        groups = sorted({place.group for place in places if place.group})
        said.append(f"{len(groups)} groups from the folders above them: {_listed(groups)}")
    if test:
        where = f"{_listed(f'{top}/' for top in test)}"
        said.append(f"{where} {'is' if len(test) == 1 else 'are'} the test part")
    if strays:
        where = f"{_listed(f'{top}/' for top in strays)}"
        said.append(f"{where} {'is' if len(strays) == 1 else 'are'} left out")
    if loose_strays:
        said.append(f"{loose_strays} images beside them are left out")
    return "; ".join(said)


def _below(image: _Image) -> _Image:
    """The image with its path in its top folder."""
    return image._replace(path=image.path[1:])


def _by_top(images: list[_Image]) -> dict[str, list[_Image]]:
    """Top folder → the images in it, sorted by folder; without images in no folder."""
    tops: defaultdict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if len(image.path) > 1:
            tops[image.path[0]].append(image)
    return dict(sorted(tops.items()))


def _folders_in(members: list[_Image]) -> set[str]:
    """Names of the folders one level below the top folders."""
    return {image.path[1] for image in members if len(image.path) > 2}


def _words(name: str) -> list[str]:
    """The words of a name in lower case: ["train", "images", "2017"] for "TrainImages_2017"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = re.split(r"[\W_]+", apart.lower())
    return [word for word in words if word]


def _listed(names: Iterable[str]) -> str:
    return some_names(names, NAMED)
