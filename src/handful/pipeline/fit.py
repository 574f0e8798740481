"""The main job: check images, plan, cross-validate, train on all labels, and save a run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from handful import devices, models
from handful.data.checks import check as inspect
from handful.data.imageset import ImageSet
from handful.data.vanished import on_the_rest
from handful.evaluation.cross_validation import THOROUGH
from handful.evaluation.label_shift import UNLABELED
from handful.files import sole_writer
from handful.methods import introduced
from handful.methods.base import Fitted, Method, Task
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.artifacts import PICTURES, REPORT
from handful.pipeline.assess import assess_given_method, assess_selected_method, scheme_for
from handful.pipeline.auto.select import select_method, with_more_images
from handful.pipeline.best_so_far import BestSoFar
from handful.pipeline.earlier_run import (
    how_to_load,
    with_earlier_labels,
    with_earlier_options,
)
from handful.pipeline.given import on_any_images
from handful.pipeline.grouping import group_images
from handful.pipeline.last_fit import train_on_all_labels, why_unlabeled_unused
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.pretrain import TRAINING_SHARE, after_pretraining, deadline_with_reserve
from handful.pipeline.pretrained import Pretrained, on_scale_of
from handful.pipeline.record import Decision, FitRequest
from handful.pipeline.resolve import ResolvedOptions, prepare_first, resolve
from handful.pipeline.run import Run, open_run, write_run
from handful.pipeline.run_folder import (
    abandon_on_vanished,
    acquire,
    clean_up,
    finish,
    release_on_refusal,
    write_command,
)
from handful.pipeline.run_tables import images_to_predict
from handful.pipeline.save import run_of, save_artifacts
from handful.pipeline.setup import check_opens, validate
from handful.progress import QUIET, Reporter, Say
from handful.text import duration, in_seconds, listed
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.settings import Settings, make_fingerprint
from handful.training.time_budget import Deadline, affordable, embedding_seconds
from handful.training.trainer import feature_positions


@on_any_images(labeled=True, load_after=how_to_load)
def fit(
    images: ImageSet,
    method: str | Method | None = None,
    *,
    labels: Any = None,
    boxes: Any = None,
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
        boxes: as in `load`: the classifier learns from crops of the photos. With `after` they are
            cut as those of the earlier run where nothing else is asked for.
        method: a name (`handful methods` lists them) or a method object. By default "auto",
            which cross-validates the methods that fit into `budget` (3 minutes by default) and
            selects the best; see `auto.select`. What is given of schedule, backbone, init and
            settings restricts it to the methods that take it.
        schedule: of the training; by default the method's own.
        backbone: a name, or a name with options; by default the method's own.
        out: folder for the run. An unfinished run there with equal images, settings, budget and
            seed is continued, a finished one is returned; any other run is refused without
            `overwrite`. A call that is interrupted leaves what the same call goes on from, and no
            classifier: only the command keeps the best one so far. `run.report()` adds report.html.
        size: side in pixels to which images are resized; by default their own, at most 64, and
            160 or 224 for a pre-trained network. With "auto" it applies to all candidates.
        aspect: how images become square: crop (the default), pad or stretch.
        flips: whether a mirrored image keeps its class; by default only for colour images.
        precision: fp32, bf16, or auto: the fastest one, which a short measurement finds for a
            training; int8 for the features of lite0, lite1 and lite2, where auto may choose it.
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
            given, and its estimate is put into the record. Names of sub-folders are new labels
            only where its own were, or where all are named like its classes; `load` with
            folders="classes" takes them.
        pictures: save thumbnails for the report. False for private photos: thumbnails and report
            of a finished run in `out` are then deleted too.
        settings: fields of the method, the schedule or the backbone, by name.
        progress: show bars and messages, in a terminal or a notebook.
        budget: seconds from here to the saved run, estimate included, or text such as "10m".
            Training steps are timed first, and the number that fits is trained, adjusted while the
            training runs. A method on features has no steps: a message says whether the time is
            enough. "auto" plans its candidates with the budget, and what follows its choice.
            Features needed only for predictions are not covered, nor are thumbnails.

    Returns:
        The Run: `run.estimate`, `run.predict(...)`, `run.evaluate(...)`, `run.report()`.

    Raises:
        HandfulError: options do not fit together or to the images, or `out` holds another run.
    """
    inputs = InputSpec(size, aspect, flips, precision)
    texts = {name: str(value) for name, value in (settings or {}).items()}
    budget = in_seconds(budget) if isinstance(budget, str) else budget
    options = FitOptions(
        method, seed, schedule, backbone, inputs, estimate, prior, texts, budget, init, groups
    )
    if origins is not None:
        images = replace(images, origins={**images.origins, **origins})
    target = Target(None if out is None else Path(out), overwrite, pictures)
    return run_fit(images, options, target, after=after, reporter=reporter, command=command)


class Target(NamedTuple):
    """Where a run goes, and what happens to a run that is there."""

    out: Path | None  # None: the run is not saved
    overwrite: bool = False  # replace another run
    pictures: bool = True  # save thumbnails
    interim: bool = False  # a better run is to follow in this folder
    whole: tuple[int, int] | None = None  # images and labels that an interim run is of a part of
    improves: str | None = None  # fingerprint of the interim run that this run replaces


@on_the_rest
@devices.memory_kept()
def run_fit(
    images: ImageSet,
    options: FitOptions,
    target: Target,
    *,
    after: Run | Path | str | None = None,
    merged: bool = False,
    reporter: Reporter = QUIET,
    command: Sequence[str] = (),
) -> Run:
    """Fit as `fit` does, whose docstring explains options and errors.

    An earlier run or a plan that names a network of the hub is no reason to download it.

    Args:
        merged: images and options have the labels and settings of the earlier run already.
    """
    with models.asked_for(options.texts):
        return _run_fit(images, options, target, after, merged, reporter, command)


def _run_fit(
    images: ImageSet,
    options: FitOptions,
    target: Target,
    after: Run | Path | str | None,
    merged: bool,
    reporter: Reporter,
    command: Sequence[str],
) -> Run:
    begun = time.perf_counter()
    earlier = open_run(after) if isinstance(after, Path | str) else after
    if earlier is not None and not merged:
        images = with_earlier_labels(images, earlier, reporter.say)
        options = with_earlier_options(options, earlier, reporter.say)
    images = on_scale_of(images, options.init, reporter.say)
    prepare_first(images, options, reporter)  # options are checked before anything takes time
    images, grouping = group_images(images, options.groups, options.cross_validates, reporter)
    resolved = resolve(images, options, earlier, command, reporter)
    if target.interim:
        resolved = resolved._replace(fingerprint=make_fingerprint(resolved.fingerprint, "interim"))
    validate(resolved.settings, resolved.task, options.seed)
    folder = target.out
    if folder is not None:
        check_opens(resolved.settings, resolved.task, options.seed)
    with sole_writer(folder), abandon_on_vanished(folder, resolved.fingerprint):
        built = None
        if folder is not None:
            built = acquire(
                folder,
                resolved.fingerprint,
                target.overwrite,
                improves=target.improves,
                asked=resolved.asked,
                say=reporter.say,
            )
            if built is None:
                return _reopen(folder, target.pictures, reporter.say)
            write_command(built, command, resolved.asked)
        for problem in inspect(images, near=False).problems:
            reporter.say(problem.said)
        work = built / "checkpoint" if built is not None else None
        best_so_far = None
        if folder is not None and target.improves is not None and built != folder:
            best_so_far = BestSoFar(
                folder, resolved.request, grouping, target.pictures, reporter.say
            )
        with release_on_refusal(work):
            decision = _decide(resolved, begun, work, target.pictures, best_so_far, reporter)
        decision, learned = train_on_all_labels(decision, resolved.request, work, reporter.say)
        seconds = time.perf_counter() - begun
        run = run_of(images, resolved.request, decision, learned, grouping, seconds)
        run.record |= {"fingerprint": resolved.fingerprint, "interim": target.interim}
        if target.interim:  # a run that goes on from it selects its method, too
            run.record["fixed"] = resolved.request.fixed
        if target.whole is not None:
            run.record["data"]["whole"] = dict(
                zip(("images", "labeled"), target.whole, strict=True)
            )
        if folder is not None and built is not None:
            save_artifacts(run, decision, resolved.request, built, target.pictures)
            run.record["seconds"] = round(time.perf_counter() - begun, 2)
            write_run(run, built, learned.history)
            finish(folder, built, say=reporter.say)
            run.folder = folder
        if best_so_far is not None and decision.selection is not None:
            best_so_far.explain(run, decision.selection)
        return run


def _reopen(folder: Path, pictures: bool, say: Say) -> Run:
    """Return the finished run in a folder; without `pictures` its thumbnails are deleted."""
    clean_up(folder)
    say(f"{folder} already holds this run, finished")
    if not pictures and (folder / PICTURES).exists():
        for shown in (REPORT, PICTURES):
            (folder / shown).unlink(missing_ok=True)
    return open_run(folder)


def _decide(
    resolved: ResolvedOptions,
    begun: float,
    work: Path | None,
    pictures: bool,
    best_so_far: BestSoFar | None,
    reporter: Reporter,
) -> Decision:
    """Return method, plan and assessment: selected by `auto`, or for the given method."""
    budget = resolved.request.budget
    deadline = None if budget is None else Deadline(budget, begun)
    if resolved.auto:
        assert deadline is not None
        return _decide_by_auto(resolved, deadline, work, best_so_far, reporter)
    return _decide_for_given_method(
        resolved.settings, resolved.task, resolved.request, deadline, work, pictures, reporter
    )


def _decide_by_auto(
    resolved: ResolvedOptions,
    deadline: Deadline,
    work: Path | None,
    best_so_far: BestSoFar | None,
    reporter: Reporter,
) -> Decision:
    """Select a method among the candidates that can be evaluated before the deadline."""
    images, request, options = resolved.task.images, resolved.request, resolved.options
    watch = best_so_far.consider if best_so_far is not None else None
    selection = select_method(images, deadline, options, request.origins, work, reporter, watch)
    selected = selection.selected
    name = selected.settings.method.name
    both = listed([one.settings.method.name for one in selected.members])
    reporter.say(f"{name}{f' of {both}' * bool(both)} is chosen{introduced(name, reporter)}")
    assessment = None
    if request.estimate:
        assessment = assess_selected_method(
            selection, request.seed, request.origins, request.shares
        )
    settings = with_more_images(selection, options, work)
    return Decision(settings, selected.task, selection.plan, assessment, selection)


def _decide_for_given_method(
    settings: Settings,
    task: Task,
    request: FitRequest,
    deadline: Deadline | None,
    work: Path | None,
    pictures: bool,
    reporter: Reporter,
) -> Decision:
    """Plan and assess the given method, with as many steps as fit before the deadline."""
    pretraining, seed, say = settings, request.seed, reporter.say
    saved = work is not None
    settings, task, pretrained, deadline = _pretrain_first(
        settings, task, request, deadline, saved, pictures, say
    )
    if why_unused := why_unlabeled_unused(settings.method, task):
        say(why_unused)
    if request.devices > 1:
        assert deadline is None and not request.estimate  # recipes have neither
        return Decision(settings, task, None, None)
    fits = 1 + (scheme_for(settings).fits if request.estimate else 0)
    to_predict = len(task.images.unlabeled) if request.prior == UNLABELED else 0
    if saved:
        to_predict += images_to_predict(task.images)
    plan = _plan(settings, task, seed, work, deadline, fits, to_predict)
    if plan.steps is not None and settings.schedule is not None:
        settings = replace(settings, schedule=replace(settings.schedule, steps=plan.steps))
    name = f"{settings.method.name}{introduced(settings.method.name, reporter)}"
    say(_expectation(name, settings, plan, len(task.labeled), fits))
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


def _deadline_after_pretraining(following: Settings, deadline: Deadline) -> Deadline | None:
    """Return the time left for the method after self-supervised pre-training.

    A training gets `TRAINING_SHARE` of the budget, also where the pre-training came from the
    cache, so that all draws of labels train for equally long. None: a method on features.
    """
    if following.schedule is None:
        return None
    return Deadline(min(deadline.left, TRAINING_SHARE * deadline.budget), time.perf_counter())


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
        if deadline is None or settings.schedule is None:
            return plan
        plan = affordable(settings, task, seed, plan, deadline.left, fits, to_predict)
        if fits == 1:
            return plan
        # As many steps as are planned for the fits of folds.
        return replace(plan, least=plan.taken or plan.steps or 0)

    return load_or_make_plan(work, measure)


def _whether_it_fits(seconds: float, left: float) -> str:
    if not seconds:
        return "the features that it learns from are known already"
    takes = f"the features it learns from take about {duration(seconds)}"
    if seconds <= left:
        return f"{takes}, within the {duration(left)} that are left"
    if left < 1:
        return f"{takes}, and the time is used up; a smaller --size is faster"
    return f"{takes}, more than the {duration(left)} that are left; a smaller --size is faster"


def _expectation(name: str, settings: Settings, plan: Plan, labeled: int, fits: int) -> str:
    """Return a sentence on what is trained next and how long it should take.

    Args:
        name: of the method, as it is shown.
    """
    schedule = settings.schedule
    if schedule is None:
        return f"{name} on features of {settings.backbone.name}, {labeled} labels"
    seconds = fits * plan.expected(schedule.steps)
    folds = f" and {fits - 1} times for the estimate" if fits > 1 else ""
    return (
        f"{name} with {settings.backbone.name} on {labeled} labels: "
        f"{plan.taken or schedule.steps} steps{folds}, about {duration(seconds)} "
        f"({plan.precision})"
    )
