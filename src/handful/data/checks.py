"""Check an image set: count its contents and list its problems, before training."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from handful.data.class_names import alike
from handful.data.decoding.value_range import in_words
from handful.data.findings import (
    ClassCount,
    Findings,
    Identical,
    Member,
    Near,
    Odd,
    Problem,
    skipped_summary,
    valid_unicode,
)
from handful.data.imageset import ImageSet
from handful.data.near_duplicates import SIZE, compared_with, near_duplicates
from handful.data.pixel_keys import pixel_numbers
from handful.data.skipped import Skipped, left_out_files
from handful.data.store import FileStore
from handful.progress import Important, Track, quiet
from handful.text import name_in_text, some_of

FEW = 2  # labels; a class with fewer is a problem
IMBALANCE = 10  # ratio of the largest to the smallest number of labels that is a problem
LONG = 4.0  # ratio of the sides above which the shape is unusual
AREA = 64.0  # ratio to the median number of pixels above which, or below 1 / AREA, size is unusual


@dataclass(frozen=True)
class _Everything:
    """Training images followed by test images."""

    parts: list[ImageSet]
    pixels: np.ndarray  # (N,) numbers, equal for equal pixels
    sizes: np.ndarray  # (N, 2) height and width
    grey: np.ndarray  # (N,) bool
    blank: np.ndarray  # (N,) bool; images of one colour have equal pixels without being copies

    def name(self, at: int) -> str:
        part, at = self._place(at)
        return part.store.names[int(part.rows[at])]

    def member(self, at: int) -> Member:
        part, at = self._place(at)
        label = int(part.labels[at])
        kind = "labeled" if label >= 0 else "unlabeled"
        name = part.store.names[int(part.rows[at])]
        return Member(
            name,
            kind if part is self.parts[0] else "test",
            part.classes[label] if label >= 0 else None,
        )

    def _place(self, at: int) -> tuple[ImageSet, int]:
        """The part that an image is in, and its position there."""
        n = len(self.parts[0])
        return (self.parts[0], at) if at < n else (self.parts[1], at - n)


def check(images: ImageSet, *, near: bool = True, track: Track = quiet) -> Findings:
    """Count what the training and the test part hold, and list their problems.

    Problems are skipped files, duplicates, leaks, conflicting labels, groups split by the test
    part, rare classes and unusual images.

    Args:
        near: also look for near-duplicates, which decodes every image.
    """
    every = _everything(images)
    identical = _identical(every)
    pairs, compared = _near(images, every, track) if near else (None, None)
    odd = _odd(every)
    counts = _counts(images)
    areas = np.argsort(every.sizes.prod(1), kind="stable")
    smallest, median, largest = (_size(every.sizes[areas[at]]) for at in (0, len(areas) // 2, -1))
    problems = [
        *_skipped_problems(images.store.skipped),
        *_identical_problems(identical),
        *_near_problems(pairs or ()),
        *_group_problems(images, every),
        *_class_problems(counts),
        *_odd_problems(odd),
        *_blank_problems(every),
        *_range_problems(images),
    ]
    return Findings(
        source=images.source,
        hash=images.hash,
        images=len(images),
        labeled=len(images.labeled),
        unlabeled=len(images.unlabeled),
        test=len(images.test) if images.test else 0,
        classes=counts,
        grey=int(every.grey.sum()),
        smallest=smallest,
        median=median,
        largest=largest,
        decoded=_decoded(images),
        skipped=images.store.skipped,
        other=dict(images.store.other),
        identical=identical,
        near=pairs,
        odd=odd,
        problems=tuple(
            replace(problem, text=valid_unicode(problem.text))
            for problem in sorted(problems, key=lambda problem: not problem.serious)
        ),
        near_compared=compared,
    )


def _everything(images: ImageSet) -> _Everything:
    parts = [images] if images.test is None else [images, images.test]
    return _Everything(
        parts,
        pixel_numbers(images),
        np.concatenate([part.store.sizes[part.rows] for part in parts]),
        np.concatenate([part.store.grey[part.rows] for part in parts]),
        np.concatenate([_blank(part) for part in parts]),
    )


def _blank(images: ImageSet) -> np.ndarray:
    """(N,) bool; none of arrays is known to be blank."""
    store = images.store
    return store.blank[images.rows] if isinstance(store, FileStore) else np.zeros(len(images), bool)


def _identical(every: _Everything) -> tuple[Identical, ...]:
    copied = (np.bincount(every.pixels) > 1)[every.pixels] & ~every.blank
    same: defaultdict[int, list[Member]] = defaultdict(list)
    for at in np.flatnonzero(copied).tolist():
        same[int(every.pixels[at])].append(every.member(at))
    return tuple(
        Identical(
            tuple(members),
            across_test=len({member.part == "test" for member in members}) > 1,
            conflicting=len({member.label for member in members} - {None}) > 1,
        )
        for members in same.values()
    )


def _near(
    images: ImageSet, every: _Everything, track: Track
) -> tuple[tuple[Near, ...], int | None]:
    """Near-duplicates, and how many images each was compared with; None: with all others."""
    test = images.test
    if test is not None and test.store is images.store:  # not held twice
        rows, labels = [images.rows, test.rows], np.full(len(every.pixels), -1)
        images = replace(images, rows=np.concatenate(rows), labels=labels, groups=None, test=None)
        test = None
    pictures = images.at(SIZE, "stretch", track, channels=1)
    if test is not None:
        pictures = torch.cat([pictures, test.at(SIZE, "stretch", track, channels=1)])
    pairs = tuple(
        Near(one, two, round(likeness, 3), (one.part == "test") != (two.part == "test"))
        for first, second, likeness in near_duplicates(pictures, track, images.store.let_go)
        if every.pixels[first] != every.pixels[second]
        for one, two in [(every.member(first), every.member(second))]
    )
    return pairs, compared_with(pictures, images.store.let_go)


def _odd(every: _Everything) -> tuple[Odd, ...]:
    areas = every.sizes.prod(1)
    against_median = areas / np.median(areas)
    long = every.sizes.max(1) > LONG * every.sizes.min(1)
    if long.mean() > 0.5:  # most images are long: that is usual here
        long[:] = False
    odd = long | (against_median > AREA) | (against_median < 1 / AREA)
    return tuple(
        Odd(every.name(at), *_size(every.sizes[at])) for at in np.flatnonzero(odd).tolist()
    )


def _counts(images: ImageSet) -> tuple[ClassCount, ...]:
    def count(part: ImageSet | None) -> np.ndarray:
        known = part.labels[part.labeled] if part else np.empty(0, np.int64)
        return np.bincount(known, minlength=images.num_classes)

    return tuple(
        ClassCount(name, int(labeled), int(test))
        for name, labeled, test in zip(
            images.classes, count(images), count(images.test), strict=True
        )
    )


def _decoded(images: ImageSet) -> dict[str, int]:
    """Treatment → number of images that needed it to be decoded; empty for arrays."""
    store = images.store
    if not isinstance(store, FileStore):
        return {}
    rows = np.concatenate([images.rows, images.test.rows if images.test else images.rows[:0]])
    counts: Counter[str] = Counter()
    for notes, n in Counter(store.notes[row] for row in rows.tolist()).items():
        counts.update(dict.fromkeys(notes, n))
    return dict(counts.most_common())


def _skipped_problems(skipped: Sequence[Skipped]) -> Iterable[Problem]:
    if skipped := left_out_files(skipped):
        first = skipped[0]
        example = f"; the first is {first.name} ({first.reason})"
        yield Problem("skipped", skipped_summary(skipped) + example, serious=True)


def _identical_problems(identical: Sequence[Identical]) -> Iterable[Problem]:
    across = [same for same in identical if same.across_test]
    conflicting = [same for same in identical if same.conflicting]
    if across:
        n = sum(member.part != "test" for same in across for member in same.members)
        yield Problem(
            "leak",
            f"{_images(n)} to train on {_is(n)} pixel for pixel in the test part too, such as "
            f"{_named(across[0].members)}; fit leaves them out",
            serious=True,
        )
    if conflicting:
        yield Problem(
            "conflict",
            f"{_sets(len(conflicting))} of identical images with different labels, such as "
            f"{_named(conflicting[0].members)}",
            serious=True,
        )
    inside = [same for same in identical if not same.across_test]
    if inside:
        copies = sum(len(same.members) - 1 for same in inside)
        yield Problem(
            "copies",
            f"{_images(copies)} {_is(copies)} an exact copy of another, such as "
            f"{_named(inside[0].members)}; copies stay in one fold",
            serious=False,
        )


def _near_problems(near: Sequence[Near]) -> Iterable[Problem]:
    if near:
        across = sum(pair.across_test for pair in near)
        yield Problem(
            "near",
            f"{_pairs(len(near))} of images {_look(len(near))} almost the same, such as "
            f"{_named((near[0].first, near[0].second))}"
            + (
                f"; {_pairs(across)} across the test boundary, all kept" if across else "; all kept"
            ),
            serious=across > 0,
        )


def _group_problems(images: ImageSet, every: _Everything) -> Iterable[Problem]:
    if images.groups is None or images.test is None or images.test.groups is None:
        return
    n = len(images)
    copied = np.isin(every.pixels[:n], every.pixels[n:])  # leaks have a problem of their own
    split = np.intersect1d(images.groups[~copied], images.test.groups)
    if len(split):
        yield Problem(
            "groups",
            f"{len(split):,} groups have images in the training and in the test part; the test "
            f"result will be too good",
            serious=True,
        )


def _class_problems(counts: Sequence[ClassCount]) -> Iterable[Problem]:
    if few := [count for count in counts if count.labeled < FEW]:
        names = some_of([f"{name_in_text(count.name)} ({count.labeled})" for count in few], 5)
        yield Problem("few", f"fewer than {FEW} labels in class {names}", serious=True)
    known = sorted((count for count in counts if count.labeled), key=lambda count: count.labeled)
    if known and known[-1].labeled >= IMBALANCE * known[0].labeled:
        yield Problem(
            "imbalance",
            f"class {name_in_text(known[-1].name)} has {known[-1].labeled:,} labels and class "
            f"{name_in_text(known[0].name)} has {known[0].labeled:,}",
            serious=False,
        )
    for text in spelling_problems(count.name for count in counts):
        yield Problem("spelling", text, serious=True)


def spelling_problems(classes: Iterable[str]) -> list[Important]:
    """A sentence for every set of class names that may mean one class, such as 'Cat' and 'cat'."""
    return [
        Important(
            f"classes that differ in spelling only: {', '.join(map(repr, names))}; if they are "
            f"one, give them one name"
        )
        for names in alike(classes)
    ]


def _odd_problems(odd: Sequence[Odd]) -> Iterable[Problem]:
    if odd:
        first = odd[0]
        yield Problem(
            "odd",
            f"{_images(len(odd))} of unusual size or shape, such as {first.name} "
            f"({first.width} x {first.height})",
            serious=False,
        )


def _blank_problems(every: _Everything) -> Iterable[Problem]:
    if names := sorted(map(every.name, np.flatnonzero(every.blank).tolist())):
        yield Problem(
            "blank",
            f"{len(names):,} blank image{'s' if len(names) > 1 else ''}: all pixels are equal, "
            f"such as in {names[0]}",
            serious=False,
        )


def _range_problems(images: ImageSet) -> Iterable[Problem]:
    if images.value_range is not None:
        scale = in_words(images.value_range)
        yield Problem("range", f"values of more than 8 bits are scaled {scale} "
                      f"for all files; predict keeps this scale", serious=False)  # fmt: skip


def _named(members: Sequence[Member]) -> str:
    """The first two members, or the first and one with another label, as examples in a sentence."""
    first = members[0]
    differs = [other for other in members[1:] if other.label != first.label]
    second = (differs or members[1:])[0]
    return f"{first.name} ({first.label or 'no label'}) and {second.name} " \
        f"({second.label or 'no label'})"  # fmt: skip


def _size(size: np.ndarray) -> tuple[int, int]:
    return int(size[0]), int(size[1])


def _images(n: int) -> str:
    return f"{n:,} image" if n == 1 else f"{n:,} images"


def _pairs(n: int) -> str:
    return f"{n:,} pair" if n == 1 else f"{n:,} pairs"


def _sets(n: int) -> str:
    return f"{n:,} set" if n == 1 else f"{n:,} sets"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _look(n: int) -> str:
    return "looks" if n == 1 else "look"
