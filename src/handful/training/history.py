"""The history of a training, its checkpoints, and the weights to go back to."""

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
    """Keeps the history of a run and its checkpoints, and says when to stop before the last step.

    Beside them it keeps the averaged weights to go back to: at the lowest validation loss where
    the schedule has patience, else at the soundest look. Weights before the first step are none.

    Args:
        judge: of a progress, says whether the training goes wrong; by default it knows no labels.
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
        self.marks = schedule.evaluation_steps()
        self.records: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}  # of the logs since the last look
        self.count = 0
        self.best: dict[str, Tensor] = {}  # averaged weights to go back to...
        self.best_step = 0  # ...and their step
        self.collapse: Collapse | None = None
        self.seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self._tick = self._saved = time.perf_counter()

    def clock(self) -> float:
        """Seconds of training up to now, over all sittings, looks included."""
        now = time.perf_counter()
        self.seconds, self._tick = self.seconds + now - self._tick, now
        return self.seconds

    def due(self, step: int) -> bool:
        """Whether metrics are to be taken after so many steps."""
        return self._passed(step) > self._passed(step - 1)

    @property
    def evaluations_left(self) -> int:
        return len(self.marks) - self._passed(self.state.step)

    def _passed(self, step: int) -> int:
        return bisect_right(self.marks, self.state.schedule_progress.position(step))

    @property
    def detector(self) -> FailureDetector:
        return self._make_detector(self.state.schedule_progress)

    def add(self, progress: Progress) -> None:
        for key, value in progress.logs.items():
            self.sums[key] = self.sums[key] + value.float() if key in self.sums else value.float()
        self.count += 1

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """One line of history: means of the logs since the last look, and the metrics now."""
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
        """Go back to the best weights, for that reason; False where there are none."""
        if self.best:
            self._collapsed(reason, self.best_step)
        return bool(self.best)

    def _collapsed(self, reason: str, kept: int) -> None:
        line = next(line for line in self.records if line["step"] == kept)
        right, chance = line.get("train_accuracy"), self.detector.chance
        self.collapse = Collapse(self.state.step, reason, kept, right, chance)

    def _conclude(self) -> None:
        """Say what is wrong at the last look; where none was sound, its own weights are kept."""
        reason = self.detector.failure(self.records) or self.detector.nothing_learned(self.records)
        if reason is not None and self.collapse is None:
            self._collapsed(reason, self.best_step if self.best else self.state.step)

    @property
    def remark(self) -> str | None:
        """What there is to say of a training that has not gone wrong."""
        return self.detector.remark(self.records) if self.collapse is None else None

    @property
    def misses(self) -> int:
        """Looks since the lowest validation loss after the first step."""
        trained = [line for line in self.records if line["step"] > 0]
        losses = [line["validation_loss"] for line in trained if "validation_loss" in line]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    @property
    def done(self) -> bool:
        return self.collapse is not None or 0 < self.schedule.patience <= self.misses

    def finish(self) -> None:
        """Keep the last state, so that a run killed from here on has nothing to train again."""
        self.clock()
        self._conclude()
        self.save()
        if self.best and (self.schedule.patience or self.collapse is not None):
            self.state.average.model.load_state_dict(self.best)

    def save_sometimes(self) -> None:
        if self.folder is not None and time.perf_counter() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        if self.folder is None:
            return
        self.clock()
        tensors = self.state.tensors()
        tensors |= {f"sums/{k}": v for k, v in self.sums.items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        kept = {"history": self.records, "count": self.count, "seconds": self.seconds}
        kept |= {"best_step": self.best_step}
        kept |= {"collapse": asdict(self.collapse) if self.collapse is not None else None}
        write_tensors(
            self.folder / "checkpoint.safetensors", tensors, {"journal": json.dumps(kept)}
        )
        self._saved = time.perf_counter()

    def resume(self) -> None:
        path = self.folder / "checkpoint.safetensors" if self.folder is not None else None
        if path is None or not path.exists():
            return
        tensors, metadata = read_tensors(path)
        self.state.restore(tensors)
        self.sums = {k[5:]: v for k, v in tensors.items() if k.startswith("sums/")}
        self.best = {k[5:]: v for k, v in tensors.items() if k.startswith("best/")}
        kept = json.loads(metadata["journal"])
        self.records, self.count, self.seconds = kept["history"], kept["count"], kept["seconds"]
        self.best_step = kept["best_step"]
        self.collapse = Collapse(**kept["collapse"]) if kept["collapse"] is not None else None
