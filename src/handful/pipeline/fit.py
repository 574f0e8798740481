"""The main job: check the images, estimate the accuracy, fit on all labels, leave a Run."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from handful import devices
from handful.data.checks import check as inspect
from handful.data.imageset import ImageSet
from handful.data.sources import check_labels
from handful.data.vanished import on_the_rest
from handful.errors import HandfulError
from handful.evaluation.accuracy_estimate import check_prior
from handful.evaluation.cross_validation import THOROUGH
from handful.evaluation.label_shift import LABELED, UNLABELED
from handful.files import sole_writer
from handful.methods import about
from handful.methods.base import Fitted, Method, Task
from handful.methods.consistency import Consistency, has_unlabeled
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec, Predictor
from handful.pipeline.artifacts import PICTURES, REPORT, STAGE_HISTORY
from handful.pipeline.assess import Judged, folds_of, judge_asked, judge_chosen
from handful.pipeline.auto.candidates import BUDGET
from handful.pipeline.auto.select import AUTO, choose
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.pretrain import TRAINING, reserving, staged
from handful.pipeline.pretrained import HISTORY, Pretrained, scaled_as
from handful.pipeline.record import Asked, Decided, record_of
from handful.pipeline.resume_labels import with_earlier_labels, with_earlier_options
from handful.pipeline.run import Run, open_run
from handful.pipeline.run_folder import (
    abandoning,
    claim,
    clear,
    looked_at,
    releasing,
    save_beside,
    save_issues,
    save_next,
    save_out_of_fold,
    settle,
)
from handful.pipeline.setup import check_opens, class_shares, prepare, rehearse
from handful.pipeline.thumbnails import save_pictures
from handful.progress import QUIET, Reporter, Say
from handful.text import duration
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.settings import Settings, fingerprint
from handful.training.time_budget import Deadline, affordable, check_budget, embedding_seconds
from handful.training.trainer import TrainingResult, feature_positions, train_task


@on_the_rest
@devices.memory_kept()
def fit(
    images: ImageSet,
    method: str | Method | None = None,
    *,
    seed: int = 0,
    out: Path | str | None = None,
    overwrite: bool = False,
    schedule: Schedule | None = None,
    backbone: str | BackboneSpec | None = None,
    size: int | None = None,
    aspect: str | None = None,
    flips: bool | None = None,
    precision: str = "auto",
    estimate: str = "folds",
    prior: Mapping[str, float] | str | None = None,
    settings: dict[str, str] | None = None,
    budget: float | None = None,
    init: Path | str | None = None,
    origins: Mapping[str, str] | None = None,
    after: Run | Path | str | None = None,
    pictures: bool = True,
    reporter: Reporter = QUIET,
    command: Sequence[str] = (),
) -> Run:
    """Train a classifier on partly labelled images, and estimate how accurate it is.

    Args:
        images: labels are -1 where unknown. A test part, if there is one, is left aside unread.
        method: a name (`handful fit --help` lists them) or a method object. By default "auto",
            which tries those that fit into `budget`, by default 3 minutes, and takes the best (see
            `auto.select`). It chooses by the estimate, and network and settings itself: where
            there is no estimate, or one of schedule, backbone, init and settings is given, the
            default is "supervised".
        schedule: of the training; by default the method's own.
        backbone: a name, or a name with options; by default the method's own.
        out: folder for the run. An unfinished run of the same images, settings and seed in there
            is continued; a finished one is returned; any other is refused without `overwrite`.
        size: side in pixels the images are brought to; by default their own, at most 64, and 160
            or 224 for a pre-trained network. "auto" brings them to it for all methods.
        aspect: how images become square: crop (the default), pad or stretch.
        flips: whether a mirrored image is of the same class; by default only for colour images.
        precision: fp32, bf16, or auto: whichever a short measurement finds faster.
        estimate: "folds", out-of-fold accuracy with an interval, or "none".
        prior: class name → its share among the new images that the estimate is for; or
            "unlabeled": as common as the saved model finds them among the images without a label;
            by default "labels": as common as among the labels.
        init: folder that `pretrain` left: the backbone, and the size and aspect of its images, are
            those in there.
        origins: image name → "random", "chosen" or "unknown": how it came to be labelled. Labels
            that were chosen are trained on but do not count in the estimate.
        after: an earlier run, or its folder. Its labels and settings count where no others are
            given, and its estimate is put into the record beside the new one.
        pictures: keep thumbnails in the folder for its report; off for private photos, and then
            those of a folder that holds this run already go, with the report that shows them.
        settings: fields of the method, the schedule or the backbone, as text, by name.
        budget: seconds for the whole fit, estimate included. Steps are timed first and as many are
            taken as fit, more or fewer where they turn out faster or slower; a method that is
            fitted to features only says whether the time will do. "auto" plans what it tries with
            it; features that only predictions need come on top.

    Returns:
        The Run: `run.estimate`, `run.predict(...)`, `run.evaluate(...)`.
    """
    begun = time.perf_counter()
    inputs = InputSpec(size, aspect, flips, precision)
    options = FitOptions(
        method, seed, schedule, backbone, inputs, estimate, prior, settings or {}, budget, init
    )
    earlier = open_run(after) if isinstance(after, Path | str) else after
    if origins is not None:
        images = replace(images, origins={**images.origins, **origins})
    if earlier is not None:
        images = with_earlier_labels(images, earlier, reporter.say)
        options = with_earlier_options(options, earlier, reporter.say)
    images = scaled_as(images, options.init, reporter.say)
    request = _resolved(images, options, earlier, command, reporter)
    folder = Path(out) if out is not None else None
    rehearse(request.chosen, request.task, seed)
    if folder is not None:
        check_opens(request.chosen, request.task, seed)
    with sole_writer(folder), abandoning(folder, request.mark):
        built = None
        if folder is not None:
            built = claim(folder, request.mark, overwrite, say=reporter.say)
            if built is None:
                return _finished(folder, pictures, reporter.say)
        for problem in inspect(images, near=False).problems:
            reporter.say(problem.text)
        work = built / "checkpoint" if built is not None else None
        with releasing(work):
            decided = _decided(request, begun, work, pictures, reporter)
        decided, learned = _learned(request, decided, work, reporter.say)
        seconds = time.perf_counter() - begun
        record = record_of(images, request.asked, decided, learned, seconds)
        run = Run(record | {"fingerprint": request.mark}, learned.predictor)
        if folder is not None and built is not None:
            _keep(run, decided, request.asked, built, pictures)
            run.record["seconds"] = round(time.perf_counter() - begun, 2)
            run.save(built, learned.history)
            settle(folder, built, say=reporter.say)
            run.folder = folder
        return run


class _Request(NamedTuple):
    """Options that go together with the images, checked before anything is written or timed."""

    chosen: Settings  # for `auto`, of the first candidate
    task: Task
    asked: Asked
    inputs: InputSpec
    auto: bool
    mark: str  # two runs with the same one are the same


def _resolved(
    images: ImageSet,
    options: FitOptions,
    after: Run | None,
    command: Sequence[str],
    reporter: Reporter,
) -> _Request:
    """The request that these options make on these images; HandfulError if it cannot be right."""
    check_labels(images)
    origin = [images.origins.get(name, "unknown") for name in images[images.labeled].names]
    shares = _checked_shares(images, options.prior, options.estimate, origin)
    method, why_not, budget = options.method, options.why_not_auto, options.budget
    if method is None:
        method = "supervised" if why_not else AUTO
    auto = method == AUTO
    if auto and why_not:
        raise HandfulError(why_not)
    if auto and budget is None:
        budget = BUDGET
    chosen, task = prepare(
        images,
        "features" if auto else method,
        schedule=options.schedule,
        backbone=options.backbone,
        inputs=options.inputs,
        settings=options.settings,
        init=options.init,
        track=reporter.track,
    )
    if budget is not None:
        budget = float(budget)
        check_budget(budget, {} if chosen.schedule is None else options.settings)
    mark = fingerprint(
        task.images.hash,
        chosen.as_json(),
        task.size,
        options.inputs.aspect or "crop",
        task.flips,
        options.seed,
        options.estimate,
        origin,
        UNLABELED if options.prior == UNLABELED else shares,
        *([] if budget is None else [budget]),
        *([] if task.init is None else [task.init.hash]),
        *([AUTO, options.inputs.size] if auto else []),
    )
    wanted = options.estimate == "folds"
    asked = Asked(options.seed, origin, wanted, options.prior, shares, budget, after, command)
    return _Request(chosen, task, asked, options.inputs, auto, mark)


def _finished(folder: Path, pictures: bool, say: Say) -> Run:
    """The run that the folder holds already, whole."""
    clear(folder)
    say(f"{folder} already holds this run, finished")
    if not pictures and (folder / PICTURES).exists():
        for shown in (REPORT, PICTURES):
            (folder / shown).unlink(missing_ok=True)
    return open_run(folder)


def _decided(
    request: _Request, begun: float, work: Path | None, pictures: bool, reporter: Reporter
) -> Decided:
    """The method, its plan and the assessment; selected by `auto`, or as asked for."""
    budget = request.asked.budget
    deadline = None if budget is None else Deadline(budget, begun)
    if request.auto:
        assert deadline is not None
        return _best(request, deadline, work, reporter)
    return _as_asked(
        request.chosen, request.task, request.asked, deadline, work, pictures, reporter.say
    )


def _learned(
    request: _Request, decided: Decided, work: Path | None, say: Say
) -> tuple[Decided, TrainingResult]:
    """The fit to all labels, at the temperature of its assessment."""
    chosen, task, planned, judged, *_ = decided
    what = "training on all labels"
    learned = train_task(chosen, task, request.asked.seed, _below(work, "fit"), planned, what, say)
    if not request.auto and (alone := _alone(chosen.method, task)):
        learned = replace(learned, remark=alone)
    if judged is None:
        return decided, learned
    judged = _completed(judged, learned.predictor, task, request.asked)
    calibrated = replace(learned.predictor, temperature=judged.estimate.temperature)
    return decided._replace(judged=judged), replace(learned, predictor=calibrated)


def _best(request: _Request, deadline: Deadline, work: Path | None, reporter: Reporter) -> Decided:
    """What the labels speak for, of what can be tried before the deadline."""
    images, asked, inputs = request.task.images, request.asked, request.inputs
    choice = choose(images, deadline.left, asked.seed, asked.origin, work, inputs, reporter)
    winner = choice.winner
    reporter.say(f"{winner.chosen.method.name} is chosen")
    judged = judge_chosen(choice, asked.seed, asked.origin, asked.shares)
    return Decided(winner.chosen, winner.task, winner.candidate.plan, judged, choice)


def _as_asked(
    chosen: Settings,
    task: Task,
    asked: Asked,
    deadline: Deadline | None,
    work: Path | None,
    pictures: bool,
    say: Say,
) -> Decided:
    """What was asked for, planned, with as many steps as fit before the deadline."""
    before, seed = chosen, asked.seed
    kept = work is not None
    chosen, task, stage, deadline = _staged(chosen, task, asked, deadline, kept, pictures, say)
    if alone := _alone(chosen.method, task):
        say(alone)
    fits = 1 + (folds_of(chosen).fits if asked.estimate else 0)
    predicted = len(task.images.unlabeled) if asked.prior == UNLABELED else 0
    if kept:
        predicted += looked_at(task.images)
    planned = _plan(chosen, task, seed, work, deadline, fits, predicted)
    if planned.steps is not None and chosen.schedule is not None:
        chosen = replace(chosen, schedule=replace(chosen.schedule, steps=planned.steps))
    say(_expectation(chosen, planned, len(task.labeled), fits))
    if deadline is not None and isinstance(chosen.method, Fitted):
        part = replace(task, images=task.images[feature_positions(chosen.method, task, seed)])
        seconds = embedding_seconds(part, planned.precision)
        say(_whether_it_fits(seconds, deadline.left))
    judged = None
    if asked.estimate:
        judged = judge_asked(chosen, task, seed, planned, asked.origin, asked.shares, work, say)
    return Decided(chosen, task, planned, judged, stage=stage, before=before)


def _staged(
    chosen: Settings,
    task: Task,
    asked: Asked,
    deadline: Deadline | None,
    kept: bool,
    pictures: bool,
    say: Say,
) -> tuple[Settings, Task, Pretrained | None, Deadline | None]:
    """`staged`, and what is left of a budget for the method that follows the stage.

    Args:
        kept: the run is, so features of all images will be wanted.
    """
    if deadline is None or not isinstance(chosen.method, SelfSupervised):
        return *staged(chosen, task, say, deadline, pictures=pictures), deadline
    fits = 1 + (THOROUGH.fits if asked.estimate else 0)
    every = kept or asked.prior == UNLABELED
    reserve = partial(reserving, chosen, task, asked.seed, deadline, fits, every)
    following, task, stage = staged(chosen, task, say, deadline, reserve, pictures)
    return following, task, stage, _rest(following, deadline)


def _completed(judged: Judged, predictor: Predictor, task: Task, asked: Asked) -> Judged:
    """With what only the saved model can tell, and what is to be known of how it was made."""
    if asked.prior == UNLABELED:
        others = task.images[task.images.unlabeled]
        judged = judged.on_unlabeled(predictor.predict_proba(others, track=task.track).numpy())
    if task.init is not None:
        judged = judged.but("the backbone learned without labels before, also from held-out images")
    return judged


def _rest(following: Settings, deadline: Deadline) -> Deadline | None:
    """Of a budget, once the stage without labels is there: what the method that follows gets.

    A training gets `TRAINING` of it, also where the stage is known or was finished in an earlier
    sitting, so that all draws of labels train for as long. None: it is fitted to features.
    """
    if following.schedule is None:
        return None
    return Deadline(min(deadline.left, TRAINING * deadline.budget), time.perf_counter())


def _checked_shares(
    images: ImageSet, prior: Mapping[str, float] | str | None, estimate: str, origin: Sequence[str]
) -> list[float] | None:
    """The given shares of the classes among new images; HandfulError if they cannot be right."""
    shares = class_shares(prior, images.classes)
    if prior not in (None, LABELED) and estimate == "none":
        raise HandfulError("prior is for the estimate, which is not asked for; leave one out")
    if shares is not None:
        check_prior(images.labels[images.labeled], shares, origin)
    elif prior == UNLABELED and not len(images.unlabeled):
        raise HandfulError(
            "prior unlabeled takes class shares from images without a label, and every image has "
            "one; give the shares as CLASS=SHARE,... or leave prior out"
        )
    return shares


def _keep(run: Run, decided: Decided, asked: Asked, folder: Path, pictures: bool) -> None:
    """What stands beside the model and its record, and is read from them."""
    task, judged = decided.task, decided.judged
    stage = decided.stage.folder if decided.stage is not None else None
    save_beside(run, task, folder, asked.origin, task.track)
    if stage is not None and (stage / HISTORY).exists():  # the cache may have been cleaned
        shutil.copyfile(stage / HISTORY, folder / STAGE_HISTORY)
    run.record["label_next"] = save_next(run, task, asked.seed, folder, task.track)
    if judged is not None:
        save_issues(judged.issues, task.images, folder)
        save_out_of_fold(judged.probabilities, task.images, folder)
    if pictures:
        probabilities = judged.probabilities if judged is not None else None
        issues = judged.issues if judged is not None else []
        method = decided.chosen.method
        save_pictures(folder, task, method, probabilities, issues, asked.seed, stage)
    else:
        (folder / PICTURES).unlink(missing_ok=True)


def _alone(method: Method, task: Task) -> str:
    """That a method which learns from images without a label has none to learn from, and why."""
    known = about(method)
    if not known.uses_unlabeled:
        return ""
    if not has_unlabeled(task):
        why = f"every image has a label, so {method.name} has none to learn from beside them"
    elif isinstance(method, Consistency) and not method.unlabeled_weight:
        why = f"unlabeled_weight is 0, so {method.name} does not learn from images without a label"
    else:
        return ""
    if known.counterpart == "supervised":
        why += ": it learns as supervised does, with its own network and schedule"
    return why


def _below(work: Path | None, name: str) -> Path | None:
    return work / name if work is not None else None


def _plan(
    chosen: Settings,
    task: Task,
    seed: int,
    work: Path | None,
    deadline: Deadline | None,
    fits: int,
    predicted: int,
) -> Plan:
    """Measured once; an interrupted run finds its own again."""

    def measured() -> Plan:
        planned = make_plan(chosen, task, seed)
        if deadline is not None and chosen.schedule is not None:
            return affordable(chosen, task, seed, planned, deadline.left, fits, predicted)
        return planned

    return load_or_make_plan(work, measured)


def _whether_it_fits(seconds: float, left: float) -> str:
    if not seconds:
        return "the features that it learns from are known already"
    takes = f"the features it learns from take about {duration(seconds)}"
    if seconds <= left:
        return f"{takes}, within the {duration(left)} that are left"
    left = max(0.0, left)
    return f"{takes}, more than the {duration(left)} that are left; a smaller --size is faster"


def _expectation(chosen: Settings, planned: Plan, labeled: int, fits: int) -> str:
    """What is about to happen, and how long it should take."""
    schedule = chosen.schedule
    if schedule is None:
        return f"{chosen.method.name} on features of {chosen.backbone.name}, {labeled} labels"
    seconds = fits * planned.expected(schedule.steps)
    folds = f" and {fits - 1} times for the estimate" if fits > 1 else ""
    return (
        f"{chosen.method.name} with {chosen.backbone.name} on {labeled} labels: "
        f"{planned.taken or schedule.steps} steps{folds}, about {duration(seconds)} "
        f"({planned.precision})"
    )
