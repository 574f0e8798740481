"""Evaluate candidates one after the other, each planned with the time that is left.

All candidates predict the labelled images out of fold, on common folds. A candidate that cannot
win any more is not evaluated, or not to its end, and the time goes to the others.

Letters in shapes: n labelled images, K classes.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from handful import models
from handful.data.imageset import ImageSet
from handful.errors import BudgetTooShort, HandfulError
from handful.evaluation.accuracy_estimate import countable
from handful.evaluation.cross_validation import FitAndPredict, Key
from handful.evaluation.novelty import POOL_SHIFT
from handful.files import read_json, write_json
from handful.methods import introduced
from handful.methods.base import Task, Trained
from handful.methods.fine_tuning import FineTuning
from handful.models.feature_cache import SMALL_IMAGES_BEST
from handful.pipeline.auto.candidates import (
    HEADS_WITH_POOL,
    Candidate,
    last_seconds,
    plan_features,
    plan_training,
    prepared,
    seconds_after_choice,
    share_with,
    why_excluded,
)
from handful.pipeline.auto.ensemble import HEADS, TRAINED, ensemble
from handful.pipeline.auto.evaluated import Evaluated, Left
from handful.pipeline.auto.evidence import (
    Evidence,
    Prior,
    cannot_win,
    hopeless,
    selected,
)
from handful.pipeline.auto.past_results import prior_for
from handful.pipeline.cross_validate import (
    FOLDS,
    fits_planned,
    fold_predictor,
    predicted_out_of_fold,
)
from handful.pipeline.options import FitOptions
from handful.pipeline.pool_check import shift_message, shift_of_pool
from handful.pipeline.run_folder import SavedFolds
from handful.progress import Reporter
from handful.text import duration
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.time_budget import Deadline

BUDGET = 180.0  # seconds; the default budget, and the most that `supervised` gets of a longer one

# Shares of the time for features and heads on them: where heads on features are ahead on other
# data sets, and where a network trained from scratch is.
_FEATURES_SHARE_FAVOURED, _FEATURES_SHARE = 0.5, 0.25
_PACKAGE_SHARE = 0.1  # of the time, for the labelled images with a network of a package
_FINE_TUNING_TIME = 90.0  # seconds beside BUDGET with which `supervised` leaves time for it
_FINE_TUNING_FROM = 20.0  # seconds; with less it does not fit, and is not measured
_FIRST_SHARE = 0.4  # of its time, for what its first layers give
_LARGE_FROM = 300.0  # seconds that must be left for images of more than 160 pixels
# Seconds that must be left for `deep_propagation`, and for `fine_tuning` of all layers.
_EXPENSIVE_FROM = 480.0
_MIN_POOL, _MAX_GRAPH = 1_000, 100_000  # images that `deep_propagation` needs, and can hold


def first_candidate(images: ImageSet, options: FitOptions, reporter: Reporter) -> str:
    """Return the first method that `auto` may choose with what the user fixed.

    Raises:
        HandfulError: there is none.
    """
    names = ("features", *HEADS_WITH_POOL, *reversed(TRAINED), "deep_propagation")
    why = {}
    for name in names:
        why[name] = why_excluded(images, name, options, reporter)
        if not why[name]:
            return name
    raise HandfulError(f"no method that auto may choose takes these options: {why['supervised']}")


@dataclass(eq=False)
class Race:
    """The candidates of a fit, evaluated in order of what they are likely to bring.

    Args:
        images: without a test part.
        options: what the user fixed restricts the candidates.
        origins: of the labels, as in `estimate`: chosen labels do not count.
        work: folder for plans and predictions, so that an interrupted race resumes; None saves
            nothing.
    """

    images: ImageSet
    deadline: Deadline
    options: FitOptions
    origins: Sequence[str]
    work: Path | None
    reporter: Reporter
    evaluated: list[Evaluated] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    earlier: float = 0.0  # seconds that an interrupted fit used before
    _why: dict[str, str] = field(default_factory=dict)  # method → why it is excluded

    def run(self) -> Iterator[Evaluated]:
        """Plan and evaluate the candidates; yields each that was evaluated to its end.

        Raises:
            HandfulError: none fits into the time.
        """
        path = self.work / "elapsed.json" if self.work is not None else None
        if path is not None and path.exists():
            self.earlier = float(read_json(path))
        for candidate in self._candidates():
            before = len(self.evaluated)
            try:
                self._evaluate(candidate)
            except Exception as error:
                if not candidate.package or self.options.backbone is not None:
                    raise
                self._leave(Left(candidate, f"with {candidate.package} is left out: {error}"))
            self._keep_elapsed()
            yield from self.evaluated[before:]
        if both := self._ensemble():
            self.evaluated.append(both)
            yield both
        if not self.evaluated:
            self._forget_plans()
            raise BudgetTooShort(
                f"no method can be evaluated within {duration(self.deadline.budget)}; give a "
                f"larger budget, or name a method"
            )

    def _ensemble(self) -> Evaluated | None:
        """The best head together with the trained networks, unless one is better alone."""
        if self.options.init is not None:  # both have the same network
            return None
        own = [one for one in self.evaluated if not one.candidate.package]
        heads = [one for one in own if one.candidate.method in HEADS]
        trained = self._trained()
        if not heads or not trained:
            return None
        priors = prior_for(self.images, bool(self.shifted))
        head = heads[selected([self._counted(one) for one in heads], priors)]
        return ensemble(head, trained, self.counted)

    def _trained(self) -> list[Evaluated]:
        """The networks that may answer together with a head."""
        return [one for one in self.evaluated if one.candidate.method in TRAINED]

    def _counted(self, one: Evaluated) -> Evidence:
        return self._shown(one.out.right, one.candidate, one.members).at(self.counted)

    def _forget_plans(self) -> None:
        """Delete the plans, so that the folder can be used with another budget."""
        if self.work is not None:
            for path in [*self.work.glob("plan-*.json"), self.work / "elapsed.json"]:
                path.unlink(missing_ok=True)

    def _candidates(self) -> Iterator[Candidate]:
        """The candidates, each planned when its turn comes."""
        scratch_first = self.priors("supervised", "features").belief.mean > 0
        share = _FEATURES_SHARE if scratch_first else _FEATURES_SHARE_FAVOURED
        heads = self._plan("features", lambda: self._heads(share))
        simple = [head for head in heads if head.method not in HEADS_WITH_POOL]
        with_pool = [head for head in heads if head.method in HEADS_WITH_POOL]
        yield from simple
        if packages := self._packages():
            for network in packages:
                plan = self._of_package(network, _PACKAGE_SHARE)
                yield from self._plan(f"features-{_short(network)}", plan)
            if best := self._best_network():
                rest = self._of_package(best, share, list(HEADS_WITH_POOL))
                with_pool = self._plan(f"heads-{_short(best)}", rest) or with_pool
                heads = with_pool or heads
        if not scratch_first:
            yield from with_pool
        later = sum(head.seconds for head in with_pool) if scratch_first else 0.0
        ending = max((seconds_after_choice(head, self.images) for head in heads), default=0.0)
        follower = 0.0 if scratch_first or not with_pool else _FINE_TUNING_TIME
        yield from self._plan("supervised", lambda: self._supervised(later, ending, follower))
        if scratch_first:
            yield from with_pool
        else:  # here `supervised` is often given up after its first fold, and leaves its time
            yield from self._plan("fine_tuning", lambda: self._fine_tuning(with_pool, ending))
        if self._has_time_for_propagation():
            yield from self._plan("deep_propagation", self._deep_propagation)

    def _excluded(self, method: str) -> str:
        """Return why a method does not go with what the user fixed; empty where it does."""
        if method not in self._why:
            self._why[method] = why_excluded(self.images, method, self.options, self.reporter)
        return self._why[method]

    def _heads(self, share: float) -> list[Candidate]:
        names = [name for name in ("features", *HEADS_WITH_POOL) if not self._excluded(name)]
        if not names:
            return []
        # Where no network is trained beside them, heads have all of the time.
        pool = len(self.images.unlabeled) > 0
        named = (*(TRAINED if pool else TRAINED[1:]), "deep_propagation")
        trained = [name for name in named if not self._excluded(name)]
        allowed = (share if trained else 1.0) * self.remaining
        later = self.deadline.budget  # predictions of a large folder may take the time once more
        return plan_features(self.images, allowed, self.options, names, self.reporter, later)

    def _packages(self) -> list[str]:
        """Networks that others put here; they take their turn where the user names none."""
        named = self.options.backbone is not None or self.options.init is not None
        return [] if named or self._excluded("features") else models.beside_ours()

    def _of_package(
        self, network: str, share: float, names: Sequence[str] = ("features",)
    ) -> Callable[[], list[Candidate]]:
        """Return a function that plans heads on features of a package's network."""

        def plan() -> list[Candidate]:
            options = replace(self.options, backbone=network)
            wanted = [name for name in names if not self._excluded(name)]
            if not wanted:
                return []
            try:
                allowed = share * self.remaining
                return plan_features(self.images, allowed, options, wanted, self.reporter)
            except Exception as error:  # of another package, and nobody named it
                self.reporter.say(f"backbone {network} is left out: {error}")
                return []

        return plan

    def _best_network(self) -> str:
        """The network of a package that heads do better with than with ours; "" for ours."""
        heads = [one for one in self.evidence() if one.method == "features"]
        return heads[selected(heads, self.priors)].network if heads else ""

    def _fine_tuning(self, heads: Sequence[Candidate], ending: float) -> list[Candidate]:
        """Plan `fine_tuning` on the pseudo-labels of a head, and on as many images as that uses.

        Args:
            ending: as for `_supervised`.
        """
        if not heads or self._excluded("fine_tuning") or "augment" in self.options.settings:
            return []
        if self.shifted:
            self._say_left_out("fine_tuning", "it would learn from images unlike the labelled ones")
            return []
        settings, options = self._taught_by(heads[0])
        allowed = share_with(ending, self.remaining - self._seconds_beside())
        if why := self._too_long_to_fine_tune(settings, options, allowed):
            self._say_left_out("fine_tuning", why)
            return []
        return self._training("fine_tuning", allowed, options, settings, self.deadline.budget)

    def _taught_by(self, head: Candidate) -> tuple[dict[str, str], FitOptions]:
        """Settings of `fine_tuning` on the pseudo-labels of a head, and options with its size."""
        largest = head.size if self.remaining >= _LARGE_FROM else SMALL_IMAGES_BEST
        size = self.options.inputs.size or min(head.size, largest)
        settings = {
            "embed_backbone": head.backbone,
            "embed_size": str(head.size),
            "limit": str(min(int(head.settings["limit"]), FineTuning.limit)),
        }
        return settings, replace(self.options, inputs=replace(self.options.inputs, size=size))

    def _too_long_to_fine_tune(
        self, settings: dict[str, str], options: FitOptions, allowed: float
    ) -> str:
        """Return why `fine_tuning` does not fit into `allowed` seconds; empty where it may."""
        given, task = prepared(self.images, "fine_tuning", options, self.reporter, settings)
        method = cast(FineTuning, given.method)
        quick = not method.views(task).images
        least = _FINE_TUNING_FROM if quick else _EXPENSIVE_FROM
        if allowed < least:
            left = duration(max(0.0, allowed))
            return f"{left} are left, and it takes {duration(least)} or more"
        first = method.first_seconds(task)
        if first > _FIRST_SHARE * allowed:
            return (
                f"its first layers would take about {duration(first)} for the images that it "
                f"learns from"
            )
        return ""

    def _seconds_beside(self) -> float:
        """Seconds of the last trainings of networks that would answer if no other one came."""
        if not self._trained():
            return 0.0
        both = self._ensemble()
        every = [*self.evaluated, both] if both else self.evaluated
        best = every[selected([self._counted(one) for one in every], self.priors)]
        trained = [one for one in best.members or (best,) if one.candidate.method in TRAINED]
        return sum(last_seconds(one.candidate) for one in trained)

    def _supervised(
        self, later: float, ending: float = 0.0, follower: float = 0.0
    ) -> list[Candidate]:
        """Plan `supervised`.

        Args:
            later: seconds that heads need which come after it.
            ending: seconds that a head needs after it was chosen, where the network is not.
            follower: seconds that another training needs beside BUDGET; 0: there is none.
        """
        allowed = share_with(ending, self.remaining - later)
        if self._has_time_for_propagation():
            follower = _EXPENSIVE_FROM
        if follower and allowed - BUDGET >= follower:
            allowed = BUDGET
        return self._training("supervised", allowed, self.options, {})

    def _has_time_for_propagation(self) -> bool:
        """Whether the budget is long enough for `deep_propagation`, and the images allow it."""
        grey = self.images.channels == 1
        return (
            grey
            and self.deadline.budget >= BUDGET + _EXPENSIVE_FROM
            and _MIN_POOL <= len(self.images.unlabeled) <= _MAX_GRAPH
            and not self._excluded("deep_propagation")
        )

    def _deep_propagation(self) -> list[Candidate]:
        if self.remaining < _EXPENSIVE_FROM:
            return []
        return self._training("deep_propagation", self.remaining, self.options, {})

    def _training(
        self,
        method: str,
        allowed: float,
        options: FitOptions,
        settings: dict[str, str],
        later: float = 0.0,
    ) -> list[Candidate]:
        if self._excluded(method):
            return []
        how = options, settings, self.reporter, later
        return plan_training(method, self.images, allowed, *how)

    def _plan(self, stage: str, make: Callable[[], list[Candidate]]) -> list[Candidate]:
        """Return the candidates of a stage; an interrupted fit reads what it planned."""
        path = self.work / f"plan-{stage}.json" if self.work is not None else None
        if path is not None and path.exists():
            return [Candidate(**row | {"plan": Plan(**row["plan"])}) for row in read_json(path)]
        planned = make()
        if path is not None:
            write_json(path, [asdict(candidate) for candidate in planned])
        return planned

    @property
    def remaining(self) -> float:
        """Seconds that are left for evaluations and a last fit."""
        return self.deadline.left - self.earlier

    @cached_property
    def priors(self) -> Callable[[str, str], Prior]:
        """(method, reference) → belief from past results, before the pool is compared."""
        return prior_for(self.images)

    @cached_property
    def counted(self) -> np.ndarray:
        """(n,) mask of the labelled images that count; all where none does."""
        counted, _ = countable(len(self.images.labeled), self.origins)
        return counted if counted.any() else np.ones_like(counted)

    @cached_property
    def shifted(self) -> bool | None:
        """Whether the unlabelled images are unlike the labelled ones; it is reported once.

        They are compared by the features of the candidate `features`; None: it was not evaluated.
        """
        for this in self.evaluated:
            if this.candidate.method == "features":
                share = shift_of_pool(this.task, this.candidate.plan.precision, self.options.seed)
                if share > POOL_SHIFT:
                    self.reporter.say(shift_message(share))
                return share > POOL_SHIFT
        return None

    def evidence(self) -> list[Evidence]:
        """What the labels that count show of each evaluated candidate."""
        return self.evidence_of(self.counted)

    def evidence_of(self, some: np.ndarray) -> list[Evidence]:
        """What some of the n labelled images, at positions or in a mask, show of each candidate."""
        return [
            self._shown(this.out.right, this.candidate, this.members).at(some)
            for this in self.evaluated
        ]

    def _shown(
        self, right: np.ndarray, of: Candidate, members: Sequence[Evaluated] = ()
    ) -> Evidence:
        groups = self.images.groups
        groups = None if groups is None else groups[self.images.labeled]
        together = tuple(one.candidate.method for one in members)
        return Evidence(of.method, right, groups, of.package, together)

    def _evaluate(self, candidate: Candidate) -> None:
        """Cross-validate a candidate; finished folds are read from `work`."""
        method, network = candidate.method, candidate.package
        if why := cannot_win(method, self.evidence(), self.priors, network):
            self._leave(Left(candidate, why))
            return
        self.reporter.say(f"{candidate.text}{introduced(method, self.reporter)}")
        begun = time.perf_counter()
        settings, task = self._prepare(candidate)
        folder = None
        if self.work is not None:
            folder = self.work / (f"{method}-{_short(network)}" if network else method)
            folder.mkdir(exist_ok=True)
        saved: MutableMapping[Key, np.ndarray] = {} if folder is None else SavedFolds(folder)
        predictor = self._predictor(candidate, settings, task, folder)
        if isinstance(settings.method, Trained):
            why = self._hopeless_in_folds(candidate, task, predictor, saved)
            if why:
                seconds = self._kept_seconds(folder, time.perf_counter() - begun)
                self._leave(Left(candidate, why, seconds))
                return
        out = predicted_out_of_fold(task, predictor, FOLDS, self.options.seed, saved)
        seconds = self._kept_seconds(folder, time.perf_counter() - begun)
        self.evaluated.append(Evaluated(candidate, settings, task, out, saved, seconds))

    def _say_left_out(self, method: str, why: str) -> None:
        self.reporter.say(f"{method}{introduced(method, self.reporter)} is left out: {why}")

    def _leave(self, left: Left) -> None:
        self.left.append(left)
        method = left.candidate.method
        self.reporter.say(f"{method}{introduced(method, self.reporter)} {left.why}")

    def _prepare(self, candidate: Candidate) -> tuple[Settings, Task]:
        steps = {"steps": str(candidate.plan.steps)} if candidate.plan.steps is not None else {}
        inputs = replace(
            self.options.inputs, size=candidate.size, precision=candidate.plan.precision
        )
        own, options = candidate.settings | steps, self.options
        if options.backbone is None and options.init is None:
            options = replace(options, backbone=candidate.backbone)
        return prepared(self.images, candidate.method, options, self.reporter, own, inputs)

    def _predictor(
        self, candidate: Candidate, settings: Settings, task: Task, folder: Path | None
    ) -> FitAndPredict:
        if settings.schedule is not None and candidate.fold_steps is not None:
            shorter = replace(settings.schedule, steps=candidate.fold_steps)
            settings = replace(settings, schedule=shorter)
        planned = replace(candidate.plan, allowed=candidate.fold_seconds)
        return fold_predictor(settings, task, self.options.seed, planned, folder, self.reporter.say)

    def _hopeless_in_folds(
        self,
        candidate: Candidate,
        task: Task,
        predictor: FitAndPredict,
        saved: MutableMapping[Key, np.ndarray],
    ) -> str:
        """Fit the first half of the folds, and return why the rest is not worth its time; else "".

        Of the second half little time would be saved, and each look may be wrong by chance.
        """
        if not self.evaluated:
            return ""
        labels = self.images.labels[self.images.labeled]
        right = np.zeros(len(labels))
        seen = np.zeros(len(labels), dtype=bool)
        fits = fits_planned(task, FOLDS, self.options.seed)
        for done, fold in enumerate(fits[: len(fits) // 2], start=1):
            if fold.key not in saved:
                saved[fold.key] = np.asarray(predictor(fold.train, fold.held, fold.seed))
                self._keep_elapsed()
            right[fold.held] = saved[fold.key].argmax(axis=1) == labels[fold.held]
            seen[fold.held] = self.counted[fold.held]
            if seen.any():
                shown = self._shown(right, candidate).at(seen)
                if why := hopeless(shown, self.evidence_of(seen), done):
                    return why
        return ""

    def _kept_seconds(self, folder: Path | None, seconds: float) -> float:
        """Return the seconds of an evaluation; those of an interrupted fit are read."""
        if folder is None:
            return seconds
        path = folder / "seconds.json"
        if not path.exists():
            write_json(path, seconds)
        return float(read_json(path))

    def _keep_elapsed(self) -> None:
        """Write down the time used so far, which a resumed fit does not have any more."""
        if self.work is not None:
            used = self.deadline.budget - self.remaining
            write_json(self.work / "elapsed.json", used)


def _short(network: str) -> str:
    """A name of a network that any file name may hold."""
    return hashlib.sha256(network.encode()).hexdigest()[:12]
