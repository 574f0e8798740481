"""Leave a first classifier in the run folder within seconds, before the other images are read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from handful import models
from handful.data.imageset import ImageSet
from handful.data.splits import labeled_sample
from handful.errors import HandfulError
from handful.evaluation.label_shift import UNLABELED
from handful.pipeline.artifacts import RECORD
from handful.pipeline.auto.candidates import why_excluded
from handful.pipeline.auto.select import AUTO
from handful.pipeline.earlier_run import with_earlier_labels, with_earlier_options
from handful.pipeline.fit import Target, run_fit
from handful.pipeline.options import FitOptions
from handful.pipeline.resolve import resolve
from handful.pipeline.run import Run
from handful.pipeline.run_folder import holds_interim
from handful.pipeline.summary import group_count
from handful.progress import QUIET, Reporter, important_only
from handful.text import counted, so_far

FIRST_LABELS = 300  # labelled images at most that the first classifier learns from
FIRST_METHOD = "features"


def first_result(
    load: Callable[[], ImageSet],
    options: FitOptions,
    target: Target,
    reporter: Reporter,
    command: Sequence[str] = (),
    after: Run | None = None,
) -> Run | None:
    """Fit a head to the features of about FIRST_LABELS labelled images; leave it as an interim run.

    Args:
        load: returns the images, or a sample of those with a label, of which `store.whole_labeled`
            tells.
        options: of the whole fit, whose method is chosen by `auto`.
        target: of the whole fit.
        after: an earlier run, whose labels and settings count, too. Where the new run is to
            replace it, that one stays until the end, and there is no first result.

    Returns:
        The run; None where `auto` may not choose this method, or the folder holds another run.

    Raises:
        HandfulError: the options do not fit together or to the images.
    """
    if target.out is None or after is not None and _same(target.out, after.folder):
        return None
    with models.asked_for(options.texts):  # what an earlier run names is not downloaded
        if after is not None:
            options = with_earlier_options(options, after)
        goes_on = (target.out / RECORD).exists()
        if options.method not in (None, AUTO) or (goes_on and not holds_interim(target.out)):
            return None
        images = load()
        if after is not None:
            images = with_earlier_labels(images, after)
        some, whole = _some_labels(images, options.seed)
        run = _fit(some, options, target._replace(whole=whole), reporter, command, after)
    if run is not None:
        reporter.say(_told(run, whole[1], goes_on))
    return run


def _some_labels(images: ImageSet, seed: int) -> tuple[ImageSet, tuple[int, int]]:
    """A sample of the labelled images, unless these are one, and of how many images and labels."""
    labels, store = images.labeled, images.store
    whole = store.whole or len(images), store.whole_labeled or len(labels)
    if store.whole_labeled:
        return images, whole
    return images[labeled_sample(labels, images.labels, FIRST_LABELS, seed)], whole


def _fit(
    images: ImageSet,
    options: FitOptions,
    target: Target,
    reporter: Reporter,
    command: Sequence[str],
    after: Run | None,
) -> Run | None:
    prior = None if options.prior == UNLABELED else options.prior
    resolve(images, replace(options, prior=prior), None, command, QUIET)  # mistakes are told now
    if why_excluded(images, FIRST_METHOD, options, QUIET):
        return None
    first = replace(options, method=FIRST_METHOD, budget=None, prior=prior)
    interim = target._replace(interim=True)
    # The whole fit says what there is to say, but for what is done here and cannot be told later.
    quiet = Reporter(reporter.track, important_only(reporter.say))
    try:
        return run_fit(
            images, first, interim, after=after, merged=True, reporter=quiet, command=command
        )
    except HandfulError:  # the folder holds another run, which the whole fit refuses, too
        return None


def _told(run: Run, every: int, goes_on: bool) -> str:
    """What is said of the run; `every` is the number of all labels."""
    figure = "" if run.estimate is None else f": {so_far(run.estimate, group_count(run.record))}"
    learned, labels = run.record["data"]["labeled"], counted(every, "label")
    if learned < every:
        labels = f"{learned:,} of {labels}"
    which = "the best classifier so far" if goes_on else "a first classifier"
    return f"{which}, from {labels}, is in {run.folder}{figure}; Ctrl-C keeps the best one"


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()
