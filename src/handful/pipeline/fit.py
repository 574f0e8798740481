"""The main job: check images, plan, cross-validate, train on all labels, and save a run."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful import devices
from handful.data.checks import check as inspect
from handful.data.imageset import ImageSet
from handful.data.sources import check_labels
from handful.data.vanished import on_the_rest
from handful.errors import HandfulError
from handful.evaluation.accuracy_estimate import check_prior
from handful.evaluation.cross_validation import THOROUGH
from handful.evaluation.label_shift import UNLABELED, counted_shares
from handful.evaluation.novelty import POOL_SHIFT
from handful.evaluation.pool_confidence import FEWEST
from handful.files import sole_writer
from handful.methods import about
from handful.methods.base import Fitted, Method, Task
from handful.methods.class_shares import ClassShares
from handful.methods.consistency import Consistency, has_unlabeled
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec, Predictor
from handful.pipeline.artifacts import PICTURES, REPORT, STAGE_HISTORY
from handful.pipeline.assess import (
    Assessment,
    assess_given_method,
    assess_selected_method,
    scheme_for,
)
from handful.pipeline.auto.candidates import prepared
from handful.pipeline.auto.race import BUDGET, first_candidate
from handful.pipeline.auto.select import AUTO, select_method
from handful.pipeline.earlier_run import with_earlier_labels, with_earlier_options
from handful.pipeline.given import on_any_images
from handful.pipeline.grouping import group_images, warn
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.pool_check import shift_of_pool, some_unlabeled
from handful.pipeline.pool_shares import pool_shares
from handful.pipeline.pretrain import TRAINING_SHARE, after_pretraining, deadline_with_reserve
from handful.pipeline.pretrained import HISTORY, Pretrained, on_scale_of
from handful.pipeline.record import Decision, FitRequest, record_of
from handful.pipeline.run import Run, open_run
from handful.pipeline.run_folder import (
    abandon_on_vanished,
    acquire,
    clean_up,
    finish,
    images_to_predict,
    release_on_refusal,
    save_issues,
    save_label_next,
    save_labels_and_predictions,
    save_out_of_fold,
)
from handful.pipeline.setup import check_opens, class_shares, validate
from handful.pipeline.thumbnails import save_pictures
from handful.progress import QUIET, Reporter, Say
from handful.text import duration, in_seconds
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.settings import Settings, make_fingerprint
from handful.training.time_budget import Deadline, affordable, check_budget, embedding_seconds
from handful.training.trainer import TrainingResult, feature_positions, train_task


@on_any_images(labeled=True)
@on_the_rest
@devices.memory_kept()
def fit(
    images: ImageSet,
    method: str | Method | None = None,
    *,
    labels: Any = None,
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
    settings: Mapping[str, Any] | None = None,
    budget: float | str | None = None,
    init: Path | str | None = None,
    origins: Mapping[str, str] | None = None,
    groups: str | None = None,
    after: Run | Path | str | None = None,
    pictures: bool = True,
    progress: bool = False,
    reporter: Reporter = QUIET,
    command: Sequence[str] = (),
) -> Run:
    """Train a classifier on partly labelled images and estimate its accuracy on new images.

    >>> run = handful.fit(
    ...     "photos",
    ...     "supervised",
    ...     labels={"fox-1.png": "fox", "fox-2.png": "fox", "hare-1.png": "hare"},
    ...     settings={"steps": 2},
    ...     estimate="none",
    ... )
    >>> run.classes
    ('fox', 'hare')

    Args:
        images: what `load` takes: a folder, a data set, pictures in memory; or what it returned. A
            test part is set aside and not read.
        labels: as in `load`: a CSV, a dict from file to label, a data frame, or a list with a
            label for each picture in memory. Missing ones are None, NaN, "" or -1.
        method: a name (`handful fit --help` lists them) or a method object. By default "auto",
            which cross-validates the methods that fit into `budget` (3 minutes by default) and
            selects the best; see `auto.select`. What is given of schedule, backbone, init and
            settings restricts it to the methods that take it.
        schedule: of the training; by default the method's own.
        backbone: a name, or a name with options; by default the method's own.
        out: folder for the run. An unfinished run there with equal images, settings and seed is
            continued, a finished one is returned; any other run is refused without `overwrite`.
        size: side in pixels to which images are resized; by default their own, at most 64, and
            160 or 224 for a pre-trained network. With "auto" it applies to all candidates.
        aspect: how images become square: crop (the default), pad or stretch.
        flips: whether a mirrored image keeps its class; by default only for colour images.
        precision: fp32, bf16, or auto: the one that a short measurement finds faster.
        estimate: "folds", out-of-fold accuracy with an interval, or "none".
        prior: class shares among the new images that the estimate is for. A mapping class name →
            share; or "unlabeled": the shares that the saved model finds among the unlabelled
            images; or "labels" (the default): the shares among the labels.
        init: folder written by `pretrain`. It fixes the backbone and the size and aspect of the
            images.
        origins: image name → "random", "chosen" or "unknown": how the image was picked for
            labelling. Chosen labels are trained on but do not count in the estimate.
        groups: which images are never split between folds, such as frames of one scene: "auto"
            (the default) looks for them among the labelled images, by their look, names and times;
            "folder": images of one folder below the classes; "none"; or a regular expression, of
            which the first bracket (else the whole match) in a file's name is its group. Groups
            that come with the images count whatever is given here.
        after: an earlier run, or its folder. Its labels and settings are used where none are
            given, and its estimate is put into the record.
        pictures: save thumbnails for the report. False for private photos: thumbnails and report
            of a finished run in `out` are then deleted too.
        settings: fields of the method, the schedule or the backbone, by name.
        progress: show bars and messages, in a terminal or a notebook.
        budget: seconds for the whole fit, estimate included, or text such as "10m". Training steps
            are timed first, and the number that fits is trained, adjusted while the training runs.
            A method on features has no steps: a message says whether the time is enough. "auto"
            plans its candidates with the budget. Features needed only for predictions are not
            covered.

    Returns:
        The Run: `run.estimate`, `run.predict(...)`, `run.evaluate(...)`.

    Raises:
        HandfulError: options do not fit together or to the images, or `out` holds another run.
    """
    begun = time.perf_counter()
    inputs = InputSpec(size, aspect, flips, precision)
    texts = {name: str(value) for name, value in (settings or {}).items()}
    budget = in_seconds(budget) if isinstance(budget, str) else budget
    options = FitOptions(
        method, seed, schedule, backbone, inputs, estimate, prior, texts, budget, init, groups
    )
    earlier = open_run(after) if isinstance(after, Path | str) else after
    if origins is not None:
        images = replace(images, origins={**images.origins, **origins})
    if earlier is not None:
        images = with_earlier_labels(images, earlier, reporter.say)
        options = with_earlier_options(options, earlier, reporter.say)
    images = on_scale_of(images, options.init, reporter.say)
    _prepared(images, options, reporter)  # options are checked before anything takes time
    images, grouping = group_images(images, options.groups, options.cross_validates, reporter)
    resolved = _resolve(images, options, earlier, command, reporter)
    folder = Path(out) if out is not None else None
    validate(resolved.settings, resolved.task, seed)
    if folder is not None:
        check_opens(resolved.settings, resolved.task, seed)
    with sole_writer(folder), abandon_on_vanished(folder, resolved.fingerprint):
        built = None
        if folder is not None:
            built = acquire(folder, resolved.fingerprint, overwrite, say=reporter.say)
            if built is None:
                return _reopen(folder, pictures, reporter.say)
        for problem in inspect(images, near=False).problems:
            reporter.say(problem.text)
        work = built / "checkpoint" if built is not None else None
        with release_on_refusal(work):
            decision = _decide(resolved, begun, work, pictures, reporter)
        decision, learned = _train_on_all_labels(resolved, decision, work, reporter.say)
        warn(grouping, decision.assessment, reporter.say)
        seconds = time.perf_counter() - begun
        record = record_of(images, resolved.request, decision, learned, seconds)
        record["groups"] = grouping.as_json(decision.assessment)
        if record["estimate"] is not None:
            record["estimate"]["caveats"] += grouping.caveats()
        run = Run(record | {"fingerprint": resolved.fingerprint}, learned.predictor)
        if folder is not None and built is not None:
            save_artifacts(run, decision, resolved.request, built, pictures)
            run.record["seconds"] = round(time.perf_counter() - begun, 2)
            run.save(built, learned.history)
            finish(folder, built, say=reporter.say)
            run.folder = folder
        return run


class _ResolvedOptions(NamedTuple):
    """Options resolved for the images, and checked before any file is written."""

    settings: Settings  # with `auto`: of the first candidate
    task: Task
    request: FitRequest
    options: FitOptions
    auto: bool
    fingerprint: str  # equal for runs with equal images, settings and seed


def _resolve(
    images: ImageSet,
    options: FitOptions,
    after: Run | None,
    command: Sequence[str],
    reporter: Reporter,
) -> _ResolvedOptions:
    """Resolve the options for these images; HandfulError if they do not fit together."""
    check_labels(images)
    origins = [images.origins.get(name, "unknown") for name in images[images.labeled].names]
    shares = _checked_shares(images, options.prior, options.estimate, origins)
    inputs = replace(options.inputs, shares=None if shares is None else tuple(shares))
    options = replace(options, inputs=inputs)
    auto = options.method in (None, AUTO)
    budget = BUDGET if auto and options.budget is None else options.budget
    settings, task = _prepared(images, options, reporter)
    if budget is not None:
        budget = float(budget)
        given = options.budget is not None and settings.schedule is not None
        check_budget(budget, options.settings if given else {})
    fingerprint = make_fingerprint(
        task.images.hash,
        settings.as_json(),
        task.size,
        options.inputs.aspect or "crop",
        task.flips,
        options.seed,
        options.estimate,
        origins,
        UNLABELED if options.prior == UNLABELED else shares,
        *([] if budget is None else [budget]),
        *([] if task.init is None else [task.init.hash]),
        *([AUTO, options.inputs.size] if auto else []),
        *([options.fixed] if auto and options.fixed else []),
    )
    wanted = options.estimate == "folds"
    request = FitRequest(
        options.seed,
        origins,
        wanted,
        options.prior,
        shares,
        budget,
        after,
        command,
        options.fixed,
    )
    return _ResolvedOptions(settings, task, request, options, auto, fingerprint)


def _prepared(images: ImageSet, options: FitOptions, reporter: Reporter) -> tuple[Settings, Task]:
    """Resolve the given method; with `auto` the first candidate that takes what the user fixed."""
    method = options.method
    if method is None or method == AUTO:
        method = first_candidate(images, options, reporter)
    return prepared(images, method, options, reporter)


def _reopen(folder: Path, pictures: bool, say: Say) -> Run:
    """Return the finished run in a folder; without `pictures` its thumbnails are deleted."""
    clean_up(folder)
    say(f"{folder} already holds this run, finished")
    if not pictures and (folder / PICTURES).exists():
        for shown in (REPORT, PICTURES):
            (folder / shown).unlink(missing_ok=True)
    return open_run(folder)


def _decide(
    resolved: _ResolvedOptions, begun: float, work: Path | None, pictures: bool, reporter: Reporter
) -> Decision:
    """Return method, plan and assessment: selected by `auto`, or for the given method."""
    budget = resolved.request.budget
    deadline = None if budget is None else Deadline(budget, begun)
    if resolved.auto:
        assert deadline is not None
        return _decide_by_auto(resolved, deadline, work, reporter)
    return _decide_for_given_method(
        resolved.settings, resolved.task, resolved.request, deadline, work, pictures, reporter.say
    )


def _train_on_all_labels(
    resolved: _ResolvedOptions, decision: Decision, work: Path | None, say: Say
) -> tuple[Decision, TrainingResult]:
    """Train on all labels, and set the temperature that the assessment found."""
    settings, task, plan, assessment, *_ = decision
    description = "training on all labels"
    learned = train_task(
        settings, task, resolved.request.seed, _subfolder(work, "fit"), plan, description, say
    )
    if not resolved.auto and (why_unused := _why_unlabeled_unused(settings.method, task)):
        learned = replace(learned, remark=why_unused)
    if assessment is None:
        return decision, learned
    assessment = _complete_assessment(decision, learned.predictor, resolved.request)
    assert assessment is not None
    calibrated = replace(learned.predictor, temperature=assessment.estimate.temperature)
    return decision._replace(assessment=assessment), replace(learned, predictor=calibrated)


def _decide_by_auto(
    resolved: _ResolvedOptions, deadline: Deadline, work: Path | None, reporter: Reporter
) -> Decision:
    """Select a method among the candidates that can be evaluated before the deadline."""
    images, request, options = resolved.task.images, resolved.request, resolved.options
    selection = select_method(images, deadline, options, request.origins, work, reporter)
    selected = selection.selected
    reporter.say(f"{selected.settings.method.name} is chosen")
    assessment = None
    if request.estimate:
        assessment = assess_selected_method(
            selection, request.seed, request.origins, request.shares
        )
    return Decision(
        selected.settings, selected.task, selected.candidate.plan, assessment, selection
    )


def _decide_for_given_method(
    settings: Settings,
    task: Task,
    request: FitRequest,
    deadline: Deadline | None,
    work: Path | None,
    pictures: bool,
    say: Say,
) -> Decision:
    """Plan and assess the given method, with as many steps as fit before the deadline."""
    pretraining, seed = settings, request.seed
    saved = work is not None
    settings, task, pretrained, deadline = _pretrain_first(
        settings, task, request, deadline, saved, pictures, say
    )
    if why_unused := _why_unlabeled_unused(settings.method, task):
        say(why_unused)
    fits = 1 + (scheme_for(settings).fits if request.estimate else 0)
    to_predict = len(task.images.unlabeled) if request.prior == UNLABELED else 0
    if saved:
        to_predict += images_to_predict(task.images)
    plan = _plan(settings, task, seed, work, deadline, fits, to_predict)
    if plan.steps is not None and settings.schedule is not None:
        settings = replace(settings, schedule=replace(settings.schedule, steps=plan.steps))
    say(_expectation(settings, plan, len(task.labeled), fits))
    if deadline is not None and isinstance(settings.method, Fitted):
        part = replace(task, images=task.images[feature_positions(settings.method, task, seed)])
        seconds = embedding_seconds(part, plan.precision)
        say(_whether_it_fits(seconds, deadline.left))
    assessment = None
    if request.estimate:
        assessment = assess_given_method(
            settings, task, seed, plan, request.origins, request.shares, work, say
        )
    return Decision(
        settings, task, plan, assessment, pretrained=pretrained, pretraining=pretraining
    )


def _pretrain_first(
    settings: Settings,
    task: Task,
    request: FitRequest,
    deadline: Deadline | None,
    saved: bool,
    pictures: bool,
    say: Say,
) -> tuple[Settings, Task, Pretrained | None, Deadline | None]:
    """Run self-supervised pre-training if the method needs it; see `after_pretraining`.

    Args:
        saved: whether the run goes to a folder, which needs the features of all images.

    Returns:
        settings, task and, after a pre-training, its outcome; and the deadline for the method
        that follows.
    """
    if deadline is None or not isinstance(settings.method, SelfSupervised):
        return *after_pretraining(settings, task, say, deadline, pictures=pictures), deadline
    fits = 1 + (THOROUGH.fits if request.estimate else 0)
    all_images = saved or request.prior == UNLABELED
    reserve = partial(
        deadline_with_reserve, settings, task, request.seed, deadline, fits, all_images
    )
    following, task, pretrained = after_pretraining(
        settings, task, say, deadline, reserve, pictures
    )
    return following, task, pretrained, _deadline_after_pretraining(following, deadline)


def _complete_assessment(
    decision: Decision, predictor: Predictor, request: FitRequest
) -> Assessment | None:
    """Return the assessment with what is known of the images without a label.

    With `prior` "unlabeled", class shares are those of `pool_shares`; where it has none, those that
    the saved model predicts. The model's mean confidence on a sample of the images enters the
    estimate where they are like the labelled ones.
    """
    task, assessment = decision.task, decision.assessment
    if assessment is None:
        return None
    images, pool = task.images, task.images.unlabeled
    if request.prior == UNLABELED:
        found = pool_shares(decision.settings.method, task, predictor.precision)
        if found is None:
            predicted = predictor.predict_proba(images[pool], track=task.track).numpy()
            assessment = assessment.with_pool_shares(predicted)
        else:
            counted = counted_shares(found.mean, assessment.out.labels, request.origins)
            assessment = assessment.with_shares(counted.tolist(), _how_found(found, task))
    if _pool_is_a_sample(decision, request):
        some = images[some_unlabeled(task, request.seed)]
        predicted = predictor.predict_proba(some, track=task.track).numpy()
        assessment = assessment.with_confidence(predicted)
    if task.init is not None:
        assessment = assessment.with_remark(
            "the backbone learned without labels before, also from held-out images"
        )
    return assessment


def _pool_is_a_sample(decision: Decision, request: FitRequest) -> bool:
    """Return whether the confidence on unlabelled images says how good the saved model is.

    The method must not have learned from them, and they must look like the labelled images, of
    which none was chosen.
    """
    settings, task, plan, *_ = decision
    groups = task.images.groups
    if groups is not None:
        scenes = np.unique(groups[task.images.labeled])
        if len(scenes) < len(task.images.labeled):
            return False  # the unlabelled images may be of the scenes that the model learned
    if (
        about(settings.method).uses_unlabeled is not False
        or task.init is not None
        or len(task.images.unlabeled) < FEWEST
        or "chosen" in request.origins
    ):
        return False
    if decision.selection is not None:
        return decision.selection.shifted is False
    if not isinstance(settings.method, Fitted):
        return False
    return shift_of_pool(task, plan.precision, request.seed) <= POOL_SHIFT


def _how_found(found: ClassShares, task: Task) -> str:
    return (
        f"as predicted for {len(task.images.unlabeled):,} images without a label by a model that "
        f"learned from the labels alone, give or take up to {100 * found.sd.max():.0f} points"
    )


def _deadline_after_pretraining(following: Settings, deadline: Deadline) -> Deadline | None:
    """Return the time left for the method after self-supervised pre-training.

    A training gets `TRAINING_SHARE` of the budget, also where the pre-training came from the
    cache, so that all draws of labels train for equally long. None: a method on features.
    """
    if following.schedule is None:
        return None
    return Deadline(min(deadline.left, TRAINING_SHARE * deadline.budget), time.perf_counter())


def _checked_shares(
    images: ImageSet, prior: Mapping[str, float] | str | None, estimate: str, origins: Sequence[str]
) -> list[float] | None:
    """Return the class shares given as `prior`; HandfulError if they cannot be right."""
    shares = class_shares(prior, images.classes)
    if prior == UNLABELED and estimate == "none":
        raise HandfulError(
            "prior unlabeled is for the estimate, and estimate is none; leave out one of them"
        )
    if shares is not None:
        check_prior(images.labels[images.labeled], shares, origins)
    elif prior == UNLABELED and not len(images.unlabeled):
        raise HandfulError(
            "prior unlabeled takes class shares from images without a label, and every image has "
            "one; give the shares as CLASS=SHARE,... or leave prior out"
        )
    return shares


def save_artifacts(
    run: Run, decision: Decision, request: FitRequest, folder: Path, pictures: bool
) -> None:
    """Write the files of the run folder beside model and record: tables and thumbnails."""
    task, assessment = decision.task, decision.assessment
    pretrained = decision.pretrained.folder if decision.pretrained is not None else None
    save_labels_and_predictions(run, task, folder, request.origins, task.track)
    # The cache, where the pre-training is, may have been cleared meanwhile.
    if pretrained is not None and (pretrained / HISTORY).exists():
        shutil.copyfile(pretrained / HISTORY, folder / STAGE_HISTORY)
    run.record["label_next"] = save_label_next(run, task, request.seed, folder, task.track)
    if assessment is not None:
        save_issues(assessment.issues, task.images, folder)
        save_out_of_fold(assessment.probabilities, task.images, folder)
    if pictures:
        probabilities = assessment.probabilities if assessment is not None else None
        issues = assessment.issues if assessment is not None else []
        method = decision.settings.method
        save_pictures(folder, task, method, probabilities, issues, request.seed, pretrained)
    else:
        (folder / PICTURES).unlink(missing_ok=True)


def _why_unlabeled_unused(method: Method, task: Task) -> str:
    """Return why a method that uses unlabelled images learns from none; empty where it does."""
    known = about(method)
    if not known.uses_unlabeled:
        return ""
    if not has_unlabeled(task):
        why = f"every image has a label, so {method.name} has no unlabelled image to learn from"
    elif isinstance(method, Consistency) and not method.unlabeled_weight:
        why = f"unlabeled_weight is 0, so {method.name} does not learn from images without a label"
    else:
        return ""
    if known.counterpart == "supervised":
        why += ": it learns as supervised does, with its own network and schedule"
    return why


def _subfolder(work: Path | None, name: str) -> Path | None:
    return work / name if work is not None else None


def _plan(
    settings: Settings,
    task: Task,
    seed: int,
    work: Path | None,
    deadline: Deadline | None,
    fits: int,
    to_predict: int,
) -> Plan:
    """Return the plan that an interrupted run wrote, or measure a new one."""

    def measure() -> Plan:
        plan = make_plan(settings, task, seed)
        if deadline is not None and settings.schedule is not None:
            return affordable(settings, task, seed, plan, deadline.left, fits, to_predict)
        return plan

    return load_or_make_plan(work, measure)


def _whether_it_fits(seconds: float, left: float) -> str:
    if not seconds:
        return "the features that it learns from are known already"
    takes = f"the features it learns from take about {duration(seconds)}"
    if seconds <= left:
        return f"{takes}, within the {duration(left)} that are left"
    left = max(0.0, left)
    return f"{takes}, more than the {duration(left)} that are left; a smaller --size is faster"


def _expectation(settings: Settings, plan: Plan, labeled: int, fits: int) -> str:
    """Return a sentence on what is trained next and how long it should take."""
    schedule = settings.schedule
    if schedule is None:
        return f"{settings.method.name} on features of {settings.backbone.name}, {labeled} labels"
    seconds = fits * plan.expected(schedule.steps)
    folds = f" and {fits - 1} times for the estimate" if fits > 1 else ""
    return (
        f"{settings.method.name} with {settings.backbone.name} on {labeled} labels: "
        f"{plan.taken or schedule.steps} steps{folds}, about {duration(seconds)} "
        f"({plan.precision})"
    )
