"""The history of a training, its checkpoints, and the best weights so far."""

import json
import math
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from handful.files import read_tensors, write_tensors
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.training.failure import Collapse, FailureDetector
from handful.training.loop import Progress, State

SAVE_EVERY = 15.0  # seconds of training between two checkpoints


class History:
    """Records a training's metrics, saves its checkpoints, and ends it early where needed.

    It also holds the best averaged weights: with patience those of the lowest validation loss,
    otherwise those of `FailureDetector.best_checkpoint`. Initial weights are never restored.

    Args:
        state: of the training; its average is evaluated and copied.
        folder: for checkpoints; None: nothing is saved. Of processes that train together, the one
            that leads saves, and all of them resume.
        schedule: says at which steps to evaluate, and whether there is patience.
        detector: makes the failure detector for a progress; the default knows no labels.
    """

    def __init__(
        self,
        state: State,
        folder: Path | None,
        schedule: Schedule,
        detector: Callable[[ScheduleProgress], FailureDetector] = FailureDetector,
    ) -> None:
        self.state, self.folder, self.schedule = state, folder, schedule
        self._make_detector = detector
        self._evaluation_steps = schedule.evaluation_steps()
        self.records: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}  # of the logs since the last evaluation
        self.count = 0
        self.best: dict[str, Tensor] = {}  # the best averaged weights so far...
        self.best_step = 0  # ...and their step
        self.collapse: Collapse | None = None
        self.seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self._tick = self._saved = time.perf_counter()

    def clock(self) -> float:
        """Seconds of training so far over all sessions, evaluations included."""
        now = time.perf_counter()
        self.seconds, self._tick = self.seconds + now - self._tick, now
        return self.seconds

    def due(self, step: int) -> bool:
        """Whether the schedule has an evaluation after step `step`."""
        return self._passed(step) > self._passed(step - 1)

    @property
    def evaluations_left(self) -> int:
        """The number of scheduled evaluations after the current step."""
        return len(self._evaluation_steps) - self._passed(self.state.step)

    def _passed(self, step: int) -> int:
        return bisect_right(self._evaluation_steps, self.state.schedule_progress.position(step))

    @property
    def detector(self) -> FailureDetector:
        return self._make_detector(self.state.schedule_progress)

    def add(self, progress: Progress) -> None:
        """Add the logs of one step to the sums that the next record averages."""
        for key, value in progress.logs.items():
            self.sums[key] = self.sums[key] + value.float() if key in self.sums else value.float()
        self.count += 1

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Append one record: means of the logs since the last one, and `metrics` of this step."""
        self.clock()
        means = {key: value.item() / self.count for key, value in self.sums.items()}
        line = {"step": step, "seconds": round(self.seconds, 3), **means, **metrics}
        self.records.append({k: v for k, v in line.items() if math.isfinite(v)})
        self.sums, self.count = {}, 0
        if self._best_is_now:
            weights = self.state.average.model.state_dict()
            self.best = {key: value.clone() for key, value in weights.items()}
            self.best_step = step
        if self.detector.should_stop(self.records):
            self._conclude()

    @property
    def _best_is_now(self) -> bool:
        line = self.records[-1]
        if self.schedule.patience:
            return line["step"] > 0 and "validation_loss" in line and self.misses == 0
        return self.detector.best_checkpoint(self.records) == line["step"]

    def give_up(self, reason: str) -> bool:
        """Record `reason` as the failure; False where there are no best weights to restore."""
        if self.best:
            self._record_failure(reason, self.best_step)
        return bool(self.best)

    def _record_failure(self, reason: str, kept: int) -> None:
        line = next(line for line in self.records if line["step"] == kept)
        right, chance = line.get("train_accuracy"), self.detector.chance
        self.collapse = Collapse(self.state.step, reason, kept, right, chance)

    def _conclude(self) -> None:
        """Record a failure at the last evaluation; without best weights its own are kept."""
        reason = self.detector.failure(self.records) or self.detector.nothing_learned(self.records)
        if reason is not None and self.collapse is None:
            self._record_failure(reason, self.best_step if self.best else self.state.step)

    @property
    def remark(self) -> str | None:
        """The detector's remark on a training without a failure; None if there is none."""
        return self.detector.remark(self.records) if self.collapse is None else None

    @property
    def misses(self) -> int:
        """Evaluations since the lowest validation loss, the one before the first step left out."""
        trained = [line for line in self.records if line["step"] > 0]
        losses = [line["validation_loss"] for line in trained if "validation_loss" in line]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    @property
    def done(self) -> bool:
        """Whether the training ends early: after a failure, or when patience has run out."""
        return self.collapse is not None or 0 < self.schedule.patience <= self.misses

    def finish(self) -> None:
        """Save the last state, and restore the best weights after a failure or with patience.

        A run that is killed after this call trains nothing again.
        """
        self.clock()
        self._conclude()
        self.save()
        if self.best and (self.schedule.patience or self.collapse is not None):
            self.state.average.model.load_state_dict(self.best)

    def save_sometimes(self) -> None:
        """Save a checkpoint if the last one is older than SAVE_EVERY."""
        if time.perf_counter() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        if self.folder is None or not self.state.group.leads:
            return
        self.clock()
        tensors = self.state.tensors()
        tensors |= {f"sums/{k}": v for k, v in self.sums.items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        saved = {"history": self.records, "count": self.count, "seconds": self.seconds}
        saved |= {"best_step": self.best_step}
        saved |= {"collapse": asdict(self.collapse) if self.collapse is not None else None}
        write_tensors(
            self.folder / "checkpoint.safetensors", tensors, {"journal": json.dumps(saved)}
        )
        self._saved = time.perf_counter()

    def resume(self) -> None:
        """Restore the checkpoint in the folder, if there is one."""
        path = self.folder / "checkpoint.safetensors" if self.folder is not None else None
        if path is None or not path.exists():
            return
        tensors, metadata = read_tensors(path)
        self.state.restore(tensors)
        self.sums = {k[5:]: v for k, v in tensors.items() if k.startswith("sums/")}
        self.best = {k[5:]: v for k, v in tensors.items() if k.startswith("best/")}
        saved = json.loads(metadata["journal"])
        self.records, self.count, self.seconds = saved["history"], saved["count"], saved["seconds"]
        self.best_step = saved["best_step"]
        self.collapse = Collapse(**saved["collapse"]) if saved["collapse"] is not None else None
