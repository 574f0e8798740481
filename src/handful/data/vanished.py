"""Repeat a job without the files that vanish, change or fail while it runs.

The cache keeps a job's results by image, so repeating the job costs little more than the part that
was not done.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from handful.data.imageset import ImageSet
from handful.data.store import Skipped, Vanished
from handful.errors import HandfulError
from handful.progress import silent

P = ParamSpec("P")
T = TypeVar("T")
Say = Callable[[str], None]
LISTED = 20  # files that are reported one by one


def with_the_rest(images: ImageSet, job: Callable[[ImageSet], T], say: Say = silent) -> T:
    """`job(images)`, repeated without the images that can no longer be read.

    Images that are left out are reported through `say` and listed in `images.store.skipped`.
    HandfulError if no image is left.
    """
    while True:
        try:
            return job(images)
        except Vanished as error:
            if error.store.lost is not images.store.lost:  # files of another store
                raise
            rest = _rest(images)
            if _count(rest) == _count(images):
                raise  # the lost files are not in `images`
            if not len(rest) or not _count(rest):
                raise HandfulError(
                    f"no image of {images.source} can be read any more; the first is "
                    f"{images.store.names[error.rows[0]]} "
                    f"({images.store.lost[int(error.rows[0])]}); is its disk still there?"
                ) from error
            _list(images, say)
            images = rest


def on_the_rest(
    job: Callable[Concatenate[ImageSet, P], T],
) -> Callable[Concatenate[ImageSet, P], T]:
    """Decorate a job whose first argument is an ImageSet with `with_the_rest`.

    Images that are left out are reported through the job's argument `say` or `reporter`.
    """

    @wraps(job)
    def done(images: ImageSet, *args: P.args, **named: P.kwargs) -> T:
        reporter: Any = named.get("reporter")
        say: Any = named.get("say") or getattr(reporter, "say", silent)
        return with_the_rest(images, lambda rest: job(rest, *args, **named), say)

    return done


def _count(images: ImageSet) -> int:
    return len(images) + (len(images.test) if images.test is not None else 0)


def _list(images: ImageSet, say: Say) -> None:
    """Report and list the lost files that are not listed yet."""
    store = images.store
    listed = {skipped.name for skipped in store.skipped}
    new = [Skipped(store.names[row], why) for row, why in sorted(store.lost.items())]
    new = [skipped for skipped in new if skipped.name not in listed]
    store.skipped += tuple(new)
    say_left_out(new, say)


def say_left_out(new: Sequence[Skipped], say: Say) -> None:
    """Report the first LISTED files one by one, and the number of the others."""
    for name, reason in new[:LISTED]:
        say(f"left out: {name}: {reason}")
    if len(new) > LISTED:
        say(f"left out: {len(new) - LISTED:,} more images")


def _rest(images: ImageSet) -> ImageSet:
    """The images that can still be read: what loading the folder again would give.

    A class without training images is dropped, together with its test images.
    """
    lost = np.array(list(images.store.lost), np.int64)
    kept = images[~np.isin(images.rows, lost)]
    test = images.test and images.test[~np.isin(images.test.rows, lost)]
    gone = set(images.labels[images.labels >= 0]) - set(kept.labels)
    if gone:
        classes = tuple(name for k, name in enumerate(images.classes) if k not in gone)
        kept = kept.relabeled(classes)
        test = test and test[~np.isin(test.labels, list(gone))].relabeled(classes)
    test = test if test is not None and len(test) else None
    return _regrouped(replace(kept, test=test))


def _regrouped(images: ImageSet) -> ImageSet:
    """Number the groups by their first image; drop groups if every image is its own group."""
    if images.groups is None:
        return images
    test = images.test
    groups = np.concatenate(
        [images.groups, test.groups if test and test.groups is not None else images.groups[:0]]
    )
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) == len(groups):
        return replace(images, groups=None, test=test and replace(test, groups=None))
    numbered = np.argsort(np.argsort(first))[number]
    n = len(images)
    return replace(images, groups=numbered[:n], test=test and replace(test, groups=numbered[n:]))
