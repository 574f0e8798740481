"""Files that go away, change or fail while a job runs: they are listed, and the rest is done.

What a job reads of an image is kept in the cache by image, so doing the rest costs little more
than what was not done yet.
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
LISTED = 20  # files that are said one by one


def with_the_rest(images: ImageSet, job: Callable[[ImageSet], T], say: Say = silent) -> T:
    """`job(images)`; where some of them cannot be read any more, the job is done with the rest.

    What is left out is said, and listed in `images.store.skipped`.
    """
    while True:
        try:
            return job(images)
        except Vanished as error:
            if error.store.lost is not images.store.lost:  # not of these files
                raise
            rest = _rest(images)
            if _count(rest) == _count(images):
                raise  # the job has other images too
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
    """A job of which the first argument is an image set, made to go on when files vanish.

    It is said through the job's argument `say`, or its `reporter`.
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
    """Say what is lost and not listed yet, and list it."""
    store = images.store
    listed = {skipped.name for skipped in store.skipped}
    new = [Skipped(store.names[row], why) for row, why in sorted(store.lost.items())]
    new = [skipped for skipped in new if skipped.name not in listed]
    store.skipped += tuple(new)
    say_left_out(new, say)


def say_left_out(new: Sequence[Skipped], say: Say) -> None:
    """The first of them one by one, and how many more there are."""
    for name, reason in new[:LISTED]:
        say(f"left out: {name}: {reason}")
    if len(new) > LISTED:
        say(f"left out: {len(new) - LISTED:,} more images")


def _rest(images: ImageSet) -> ImageSet:
    """The images that can still be read, as if the folder had been opened without the others.

    A class of which no training image is left is no class any more, and its test images are no
    test: loading the folder again would find the same.
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
    """Groups numbered by their first image; none where every image is a group of its own."""
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
