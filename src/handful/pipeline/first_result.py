"""Leave a first classifier in the run folder within seconds, before the other images are read."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.evaluation.label_shift import UNLABELED
from handful.pipeline.artifacts import RECORD
from handful.pipeline.auto.candidates import why_excluded
from handful.pipeline.auto.select import AUTO
from handful.pipeline.fit import Target, run_fit
from handful.pipeline.options import FitOptions
from handful.pipeline.run import Run, read_record
from handful.progress import QUIET, Reporter, silent
from handful.text import about_right, counted

FIRST_LABELS = 300  # labelled images at most that the first classifier learns from
FIRST_METHOD = "features"


def first_result(
    load: Callable[[], ImageSet],
    options: FitOptions,
    target: Target,
    reporter: Reporter,
    command: Sequence[str] = (),
) -> Run | None:
    """Fit a head to the features of labelled images, and leave it as an interim run.

    Args:
        load: returns the labelled images, at most FIRST_LABELS.
        options: of the whole fit, whose method is chosen by `auto`.
        target: of the whole fit.

    Returns:
        The run; None where `auto` may not choose this method, where the folder holds a finished
        run, or where something is wrong, which the whole fit will tell.
    """
    if options.method not in (None, AUTO) or target.out is None:
        return None
    try:
        if (target.out / RECORD).exists() and not read_record(target.out)["interim"]:
            return None
        images = load()
        if why_excluded(images, FIRST_METHOD, options, QUIET):
            return None
        prior = None if options.prior == UNLABELED else options.prior
        first = replace(options, method=FIRST_METHOD, budget=None, prior=prior)
        # What there is to say is said by the whole fit.
        quiet = Reporter(reporter.track, silent)
        run = run_fit(images, first, target._replace(interim=True), reporter=quiet, command=command)
    except HandfulError:
        return None
    figure = "" if run.estimate is None else f", {about_right(run.estimate)}"
    labels = counted(run.record["data"]["labeled"], "label")
    reporter.say(
        f"a first classifier, from {labels}{figure}, is in {target.out}; Ctrl-C keeps the best "
        f"one so far"
    )
    return run
