"""The main job: check the images, estimate the accuracy, fit on all labels, leave a Run."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import handful
from handful import backbones, devices
from handful.budget import Deadline, affordable, check_budget, embedding_seconds
from handful.candidates import BUDGET
from handful.choose import AUTO, Choice, choose, thorough
from handful.data.checks import check as inspect
from handful.data.imageset import ImageSet, Track, quiet
from handful.data.sources import check_labels
from handful.estimate import (
    THOROUGH,
    Estimate,
    LabelIssue,
    OutOfFold,
    Scheme,
    averaged,
    check_prior,
    label_issues,
)
from handful.estimate import estimate as estimate_accuracy
from handful.files import read_json, sole_writer, write_json
from handful.folder import (
    Finished,
    claim,
    clear,
    releasing,
    save_beside,
    save_issues,
    save_next,
    save_out_of_fold,
)
from handful.forecast import Forecast, forecast
from handful.learn import (
    FOLDS,
    Learned,
    Say,
    Settings,
    fingerprint,
    fold_predictor,
    learn,
    learned_from,
    make_plan,
    predicted_out_of_fold,
)
from handful.methods.base import BackboneSpec, Fitted, Method, Task, Trained, as_json
from handful.methods.consistency import Consistency, has_unlabeled
from handful.methods.label_free import LabelFree
from handful.prepare import class_shares, prepare, rehearse
from handful.pretrain import TRAINING, reserving, staged
from handful.priors import LABELED, UNLABELED, unlabeled_shares
from handful.report.pictures import save_pictures
from handful.results import Run, open_run
from handful.schedule import Schedule
from handful.train import Plan
from handful.wording import duration


@dataclass(frozen=True)
class Reporter:
    """Where a long job tells how it goes: bars through `track`, sentences through `say`."""

    track: Track = quiet
    say: Callable[[str], None] = lambda text: None


QUIET = Reporter()


class Judged(NamedTuple):
    """What the labelled images tell of the model, and what its folds tell of them."""

    estimate: Estimate
    issues: list[LabelIssue]
    probabilities: np.ndarray  # (n, K) of the n labelled images, out of fold
    forecast: list[Forecast]
    out: OutOfFold
    shares: Sequence[float] | None  # of the classes among new images; None: as labelled
    rivals: Sequence[OutOfFold] = ()  # of the methods that this one was preferred to


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
    aspect: str = "crop",
    flips: bool | None = None,
    precision: str = "auto",
    estimate: str = "folds",
    prior: Mapping[str, float] | str | None = None,
    settings: dict[str, str] | None = None,
    budget: float | None = None,
    init: Path | str | None = None,
    origins: Mapping[str, str] | None = None,
    after: Run | None = None,
    pictures: bool = True,
    reporter: Reporter = QUIET,
    command: Sequence[str] = (),
) -> Run:
    """Train a classifier on partly labelled images, and estimate how accurate it is.

    Args:
        images: labels are -1 where unknown. A test part, if there is one, is left aside unread.
        method: a name (`handful fit --help` lists them) or a method object. By default "auto",
            which tries those that fit into `budget`, by default 3 minutes, and takes the best (see
            `handful.choose`). It chooses by the estimate, and network and settings itself: where
            there is no estimate, or one of schedule, backbone, init and settings is given, the
            default is "supervised".
        schedule: of the training; by default the method's own.
        backbone: a name, or a name with options; by default the method's own.
        out: folder for the run. An unfinished run of the same images, settings and seed in there
            is continued; a finished one is returned; any other is refused without `overwrite`.
        size: side in pixels the images are brought to; by default their own, at most 64, and 160
            or 224 for a pre-trained network. "auto" brings them to it for all methods.
        aspect: how images become square: crop, pad or stretch.
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
        after: an earlier run; its estimate is put into the record beside the new one.
        pictures: keep thumbnails in the folder for its report; off for private photos.
        settings: fields of the method, the schedule or the backbone, as text, by name.
        budget: seconds for the whole fit, estimate included. The first steps are timed and the
            number of steps is then fixed; a method that is fitted to features only says whether
            the time will do. "auto" plans what it tries with it; features that only predictions
            need come on top.

    Returns:
        The Run: `run.estimate`, `run.predict(...)`, `run.evaluate(...)`.
    """
    begun = time.perf_counter()
    if estimate not in ("folds", "none"):
        raise ValueError(f"no estimate {estimate!r}; choose folds or none")
    check_labels(images)
    origin = [(origins or {}).get(name, "unknown") for name in images[images.labeled].names]
    shares = _checked_shares(images, prior, estimate, origin)
    given = {"schedule": schedule, "backbone": backbone, "init": init, "settings": settings}
    why_not = _why_not_auto(estimate, [name for name, value in given.items() if value])
    if method is None:
        method = "supervised" if why_not else AUTO
    auto = method == AUTO
    if auto:
        if why_not:
            raise ValueError(why_not)
        budget = BUDGET if budget is None else budget
    chosen, task = prepare(
        images,
        "features" if auto else method,
        schedule=schedule,
        backbone=backbone,
        size=size,
        aspect=aspect,
        flips=flips,
        precision=precision,
        settings=settings,
        init=init,
        track=reporter.track,
    )
    if budget is not None:
        budget = float(budget)
        check_budget(budget, {} if chosen.schedule is None else settings or {})
    mark = fingerprint(
        task.images.hash,
        chosen.as_json(),
        task.size,
        aspect,
        task.flips,
        seed,
        estimate,
        origin,
        UNLABELED if prior == UNLABELED else shares,
        *([] if budget is None else [budget]),
        *([] if task.init is None else [task.init.hash]),
        *([AUTO, size] if auto else []),
    )
    rehearse(chosen, task, seed)
    folder = Path(out) if out is not None else None
    with sole_writer(folder):
        if folder is not None and claim(folder, mark, overwrite):
            clear(folder)
            reporter.say(f"{folder} already holds this run, finished")
            return open_run(folder)
        work = folder / "checkpoint" if folder is not None else None

        for problem in inspect(images, near=False).problems:
            reporter.say(problem.text)
        if isinstance(chosen.method, Consistency) and not has_unlabeled(task):
            reporter.say(
                f"every image has a label, so there is none for {chosen.method.name} to learn from "
                f"beside them: it learns as supervised does, with its own schedule"
            )
        asked, stage = chosen, None
        deadline = None if budget is None else Deadline(budget, begun)
        with releasing(work):
            if auto:
                assert deadline is not None
                look: dict[str, Any] = {"size": size, "aspect": aspect, "flips": flips}
                look |= {"precision": precision, "track": reporter.track}
                decided = _best(task, seed, deadline, origin, shares, work, look, reporter.say)
            else:
                reserve = None
                if deadline is not None and isinstance(chosen.method, LabelFree):
                    fits = 1 + (_folds(THOROUGH) if estimate == "folds" else 0)
                    every = folder is not None or prior == UNLABELED
                    reserve = partial(reserving, chosen, task, seed, deadline, fits, every)
                chosen, task, stage = staged(chosen, task, reporter.say, deadline, reserve)
                if stage is not None and deadline is not None:
                    deadline = _rest(chosen, deadline)
                decided = _as_asked(
                    chosen, task, seed, deadline, estimate, origin, shares, work, reporter.say
                )
        chosen, task, planned, judged, choice = decided
        below, what = _below(work, "fit"), "training on all labels"
        learned = learn(chosen, task, seed, below, planned, what, reporter.say)
        if judged is not None:
            if prior == UNLABELED:
                judged = _on_unlabeled(judged, learned, task, origin)
            if task.init is not None:
                judged = judged._replace(estimate=_pretrained(judged.estimate))
            calibrated = replace(learned.predictor, temperature=judged.estimate.temperature)
            learned = replace(learned, predictor=calibrated)

        seconds = time.perf_counter() - begun
        record = _record(images, task, chosen, learned, judged, seed, seconds, list(command))
        record["training"]["budget"] = budget
        record["choice"] = _choice_rows(choice, judged, origin)
        record |= {"init": task.init.hash if task.init is not None else None, "stage": None}
        if stage is not None:
            record |= {"method": as_json(asked.method), "schedule": stage.record["schedule"]}
            record["backbone"] |= asdict(asked.backbone)
            record["stage"] = stage.record["training"] | {"collapse": stage.record["collapse"]}
        record |= {"prior": _shares_by_name(judged, images.classes), "after": _earlier(after)}
        record["prior_from"] = "given" if isinstance(prior, Mapping) else prior or LABELED
        run = Run(record | {"fingerprint": mark}, learned.predictor)
        if folder is not None:
            _keep(run, task, chosen.method, judged, seed, folder, origin, pictures)
            run.record["seconds"] = round(time.perf_counter() - begun, 2)
            run.save(folder, learned.history)
            clear(folder)
        return run


class Decided(NamedTuple):
    """What is fitted to all labels, how, and what the labels told of it beforehand."""

    chosen: Settings
    task: Task
    planned: Plan
    judged: Judged | None  # None where no estimate was asked for
    choice: Choice | None = None


def _best(
    task: Task,
    seed: int,
    deadline: Deadline,
    origin: Sequence[str],
    shares: Sequence[float] | None,
    work: Path | None,
    look: dict[str, Any],
    say: Say,
) -> Decided:
    """What the labels speak for, of what can be tried before the deadline."""
    choice = choose(task.images, deadline.left, seed, origin, work, say, look)
    winner = choice.winner
    say(f"{winner.chosen.method.name} is chosen")
    judged = _chosen(choice, seed, origin, shares)
    return Decided(winner.chosen, winner.task, winner.candidate.plan, judged, choice)


def _as_asked(
    chosen: Settings,
    task: Task,
    seed: int,
    deadline: Deadline | None,
    estimate: str,
    origin: Sequence[str],
    shares: Sequence[float] | None,
    work: Path | None,
    say: Say,
) -> Decided:
    """What was asked for, planned, with as many steps as fit before the deadline."""
    fits = 1 + (_folds(FOLDS) if estimate == "folds" else 0)
    planned = _plan(chosen, task, seed, work, deadline, fits)
    if planned.steps is not None and chosen.schedule is not None:
        chosen = replace(chosen, schedule=replace(chosen.schedule, steps=planned.steps))
    say(_expectation(chosen, planned, len(task.labeled), fits))
    if deadline is not None and isinstance(chosen.method, Fitted):
        part = replace(task, images=task.images[learned_from(chosen.method, task, seed)])
        seconds = embedding_seconds(part, planned.precision)
        say(_whether_it_fits(seconds, deadline.left))
    judged = None
    if estimate == "folds":
        judged = _estimate(chosen, task, seed, work, planned, origin, shares, say)
    return Decided(chosen, task, planned, judged)


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
    """Shares of the classes among new images where they are given; ValueError if they cannot be."""
    shares = class_shares(prior, images.classes)
    if prior not in (None, LABELED) and estimate == "none":
        raise ValueError("prior is for the estimate, which is not asked for; leave one out")
    if shares is not None:
        check_prior(images.labels[images.labeled], shares, origin)
    elif prior == UNLABELED and not len(images.unlabeled):
        raise ValueError(
            "prior unlabeled takes class shares from images without a label, and every image has "
            "one; give the shares as CLASS=SHARE,... or leave prior out"
        )
    return shares


def _keep(
    run: Run,
    task: Task,
    method: Method,
    judged: Judged | None,
    seed: int,
    folder: Path,
    origin: Sequence[str],
    pictures: bool,
) -> None:
    """What stands beside the model and its record, and is read from them."""
    save_beside(run, task, folder, origin, task.track)
    run.record["label_next"] = save_next(run, task, seed, folder, task.track)
    if judged is not None:
        save_issues(judged.issues, task.images, folder)
        save_out_of_fold(judged.probabilities, task.images, folder)
    if pictures:
        probabilities = judged.probabilities if judged is not None else None
        issues = judged.issues if judged is not None else []
        save_pictures(folder, task, method, probabilities, issues, seed)


def _earlier(after: Run | None) -> dict[str, Any] | None:
    """What the record keeps of the run that this one follows."""
    if after is None:
        return None
    return {
        "fingerprint": after.record["fingerprint"],
        "labeled": after.record["data"]["labeled"],
        "estimate": after.estimate,
    }


def _below(work: Path | None, name: str) -> Path | None:
    return work / name if work is not None else None


def _plan(
    chosen: Settings,
    task: Task,
    seed: int,
    work: Path | None,
    deadline: Deadline | None,
    fits: int,
) -> Plan:
    """Measured once; an interrupted run finds its own again."""
    path = _below(work, "plan.json")
    if path is not None and path.exists():
        return Plan(**read_json(path))
    planned = make_plan(chosen, task, seed)
    if deadline is not None and chosen.schedule is not None:
        planned = affordable(chosen, task, seed, planned, deadline.left, fits)
    if path is not None:
        write_json(path, asdict(planned))
    return planned


def _why_not_auto(estimate: str, given: Sequence[str]) -> str:
    """What keeps auto from choosing: no estimate, or one of its own decisions is `given`."""
    if estimate == "none":
        return "auto chooses by the estimate; leave estimate none out, or name a method"
    if given:
        return (
            f"auto chooses the network and its settings, and {given[0]} is given too; name a "
            f"method, or leave {given[0]} out"
        )
    return ""


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
    seconds = fits * planned.seconds(schedule.steps)
    folds = f" and {fits - 1} times for the estimate" if fits > 1 else ""
    return (
        f"{chosen.method.name} with {chosen.backbone.name} on {labeled} labels: "
        f"{schedule.steps} steps{folds}, about {duration(seconds)} ({planned.precision})"
    )


def _estimate(
    chosen: Settings,
    task: Task,
    seed: int,
    work: Path | None,
    planned: Plan,
    origin: Sequence[str],
    shares: Sequence[float] | None,
    say: Say,
) -> Judged:
    """The estimate, and the labels that it makes doubtful, from predictions out of fold."""
    predictor = fold_predictor(chosen, task, seed, planned, work, say)
    finished = Finished(work) if work is not None else None
    out = predicted_out_of_fold(task, predictor, _scheme(chosen), seed, finished)
    return _judged(out, origin, shares)


def _judged(
    out: OutOfFold,
    origin: Sequence[str],
    shares: Sequence[float] | None,
    shares_how: str = "as given",
    rivals: Sequence[OutOfFold] = (),
) -> Judged:
    found = estimate_accuracy(
        out, prior=shares, origins=origin, rivals=rivals, prior_how=shares_how
    )
    return Judged(
        found,
        label_issues(out),
        averaged(out, found.temperature),
        forecast(found, out),
        out,
        shares,
        rivals,
    )


def _chosen(
    choice: Choice, seed: int, origin: Sequence[str], shares: Sequence[float] | None
) -> Judged:
    """What the labels tell of the method that was chosen: less, as it was chosen by them."""
    judged = _judged(thorough(choice.winner, seed), origin, shares, rivals=choice.rivals)
    candidate = choice.winner.candidate
    if candidate.fold_steps == candidate.plan.steps or judged.estimate.accuracy is None:
        return judged
    how = f"its models took {candidate.fold_steps} of {candidate.plan.steps} steps"
    return judged._replace(estimate=_but(judged.estimate, how))


def _choice_rows(
    choice: Choice | None, judged: Judged | None, origin: Sequence[str]
) -> list[dict[str, Any]]:
    """What the record says of every method that was tried; nothing where one was asked for."""
    if choice is None or judged is None:
        return []
    rows = []
    for tried, verdict in zip(choice.tried, choice.verdicts, strict=True):
        own = tried is choice.winner
        found = judged.estimate
        if not own:
            found = estimate_accuracy(tried.out, prior=judged.shares, origins=origin)
        rows.append(
            {
                "method": tried.candidate.method,
                "backbone": tried.candidate.backbone,
                "size": tried.candidate.size,
                **{key: getattr(found, key) for key in ("accuracy", "low", "high", "level")},
                "seconds": round(tried.seconds, 2),
                "verdict": verdict,
                "chosen": own,
            }
        )
    return rows


def _pretrained(estimate: Estimate) -> Estimate:
    """The estimate, which says that the folds share a backbone."""
    return _but(estimate, "the backbone learned without labels before, also from held-out images")


def _but(estimate: Estimate, remark: str) -> Estimate:
    return replace(estimate, how=f"{estimate.how}; {remark}")


def _on_unlabeled(judged: Judged, learned: Learned, task: Task, origin: Sequence[str]) -> Judged:
    """The same for class shares as the saved model finds them among the images without a label."""
    others = task.images[task.images.unlabeled]
    predicted = learned.predictor.predict_proba(others, track=task.track).numpy()
    shares = unlabeled_shares(judged.out, predicted, origin).tolist()
    how = f"as predicted for {len(others):,} images without a label"
    return _judged(judged.out, origin, shares, how, judged.rivals)


def _shares_by_name(judged: Judged | None, classes: Sequence[str]) -> dict[str, float] | None:
    if judged is None or judged.shares is None:
        return None
    return dict(zip(classes, judged.shares, strict=True))


def _folds(scheme: Scheme) -> int:
    """Fits that an estimate takes."""
    return sum(parts for parts, _ in scheme.rounds)


def _scheme(chosen: Settings) -> Scheme:
    return FOLDS if isinstance(chosen.method, Trained) else THOROUGH


def _record(
    images: ImageSet,
    task: Task,
    chosen: Settings,
    learned: Learned,
    judged: Judged | None,
    seed: int,
    seconds: float,
    command: list[str],
) -> dict[str, Any]:
    backbone = learned.predictor.model.backbone
    return {
        "handful": handful.__version__,
        "command": command,
        "seed": seed,
        "seconds": round(seconds, 2),
        "data": {
            "source": images.source,
            "images": len(images) + (len(images.test) if images.test is not None else 0),
            "labeled": len(images.labeled),
            "unlabeled": len(images.unlabeled),
            "test": len(images.test) if images.test is not None else 0,
            "classes": list(images.classes),
            "hash": task.images.hash,
        },
        "method": as_json(chosen.method),
        "schedule": chosen.as_json()["schedule"],
        "backbone": {
            **asdict(chosen.backbone),
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "weights": backbones.fingerprint(backbone),
        },
        "input": {
            "size": task.size,
            "channels": task.channels,
            "aspect": task.fit,
            "flips": task.flips,
        },
        "training": {
            "steps": learned.steps,
            "images_seen": learned.images_seen,
            "device": devices.device().type,
            "threads": learned.plan.threads,
            "precision": learned.plan.precision,
            "seconds": round(learned.seconds, 2),
            "collapse": asdict(learned.collapse) if learned.collapse is not None else None,
        },
        "estimate": judged.estimate.as_json(images.classes) if judged is not None else None,
        "label_issues": len(judged.issues) if judged is not None else None,
        "forecast": [asdict(row) for row in judged.forecast] if judged is not None else [],
        "label_next": [],
        "test": None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
