"""Detect a failed training from its history, and find the best checkpoint before the failure.

Four failures are known; none of the tests reads a test label.

1. Class collapse, in semi-supervised training: nearly all pseudo-labels are of one class, and the
   network no longer recognises the labelled images, or has not learned them by half of the steps.
   While it recognises them, the pseudo-labels may be correct, because most unlabelled images may
   be of one class; then the training continues and a remark is made.
2. Unused images, in semi-supervised training: pseudo-labels that were used are used no longer.
3. Nothing learned, in any training, tested at its end: the share of correct training images is not
   above the share of their most common label.
4. A loss that is not finite: the training loop raises `Diverged`.

The first two are tested after the first fifth of the steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.methods.schedule import GRACE, ScheduleProgress

Line = dict[str, float]

COLLAPSED = 0.9  # `swallowed` above this is class collapse: 0 is the prior, 1 is all pseudo-labels
FORGOTTEN = 0.25  # drop of the training accuracy below its maximum that counts as forgotten
LEARNED_BY = 0.5  # share of the steps by which the labels must be learned
UNUSED, USED = 0.01, 0.1  # shares of the unlabelled images: below is unused, from here on used
UNUSED_FOR = 0.3  # share of the steps for which pseudo-labels must be unused


@dataclass(frozen=True)
class Collapse:
    """What went wrong in a training, and which weights were kept."""

    step: int  # at which the failure was detected
    reason: str
    kept: int  # step of the averaged weights that are kept
    right: float | None = None  # accuracy of these weights on the labelled images
    chance: float = 0.0  # share of the most common label

    @property
    def text(self) -> str:
        text = f"{self.reason}; the averaged weights of step {self.kept} are kept"
        if self.right is None:
            return text
        text = f"{text}, with {self.right:.0%} of the labelled images right"
        if not _by_chance(self.right, self.chance):
            return text
        return f"{text}, no more than the {self.chance:.0%} that have the commonest label: no use"


def recorded_failures(record: Mapping[str, Any]) -> str:
    """The failures that a run.json records, as one sentence; empty where there is none.

    Args:
        record: the run's record, of which `stage` is self-supervised pre-training.
    """
    stage, found = (record.get("stage") or {}).get("collapse"), record["training"].get("collapse")
    failures = [f"in self-supervised pre-training {stage}"] if stage else []
    return "; ".join([*failures, *([Collapse(**found).text] if found is not None else [])])


def _by_chance(right: float, chance: float) -> bool:
    """Whether an accuracy is not above that of the most common label."""
    return 0 < chance < 1 and right <= chance


@dataclass(frozen=True)
class FailureDetector:
    """Tests of a training's history; each is about its last evaluation.

    Args:
        progress: of the training through its schedule.
        chance: share of the most common label among the images of `train_accuracy`. With 0 (no
            labels) or 1 (labels of one class), the tests that need it are skipped.
        classes: names in the order of the labels, for messages; by default messages have numbers.
        advice: settings that messages say to try; by default a lower learning rate.
    """

    progress: ScheduleProgress
    chance: float = 0.0
    classes: Sequence[str] = ()
    advice: str = ""

    def failure(self, history: Sequence[Line]) -> str | None:
        """The failure at the last evaluation, a sentence with a remedy; None if there is none."""
        if not history or not self._past_grace(history[-1]):
            return None
        if self._collapsed(history):
            return (
                f"class collapse{self._largest_class(history[-1])} {self._where(history)}; "
                f"try --set align=true, if the method has it, or {self._other_steps}"
            )
        if self._unused(history) and max(one.get("kept", 0) for one in history) >= USED:
            return (
                f"the unlabelled images are no longer used {self._where(history)}: no pseudo-label "
                f"is confident enough; try {self._other_steps}, or a lower --set threshold if the "
                f"method has it"
            )
        return None

    def nothing_learned(self, history: Sequence[Line]) -> str | None:
        """A sentence where the last accuracy is not above chance; None otherwise."""
        right = history[-1].get("train_accuracy", 1.0)
        if not _by_chance(right, self.chance):
            return None
        return (
            f"nothing was learned from the labels {self._where(history)}: {right:.0%} of the "
            f"labelled images are right, and {self.chance:.0%} have the commonest label; try "
            f"{self._other_steps} or more steps"
        )

    @property
    def _other_steps(self) -> str:
        return self.advice or "a lower learning rate"

    def should_stop(self, history: Sequence[Line]) -> bool:
        """Whether the last two evaluations both show class collapse."""
        both = [history[: len(history) - back] for back in (0, 1)]
        return all(some and self._past_grace(some[-1]) and self._collapsed(some) for some in both)

    def remark(self, history: Sequence[Line]) -> str | None:
        """A sentence about pseudo-labels that are suspect but no failure; None otherwise."""
        if not history:
            return None
        if self._unused(history) and max(line.get("kept", 0) for line in history) < USED:
            return (
                f"hardly any pseudo-label was confident enough to be used in "
                f"{history[-1]['step']:.0f} steps, so the network learned from the labels alone; "
                "train for longer, or try a lower --set threshold if the method has it"
            )
        if self._past_grace(history[-1]) and _one_class(history[-1]):
            return (
                f"nearly all pseudo-labels are of one class{self._largest_class(history[-1])} "
                f"{self._where(history)}, a far larger share than among the labels. This is right "
                f"if most unlabelled images are of this class; otherwise it is class collapse: "
                f"check some predictions, and try --set align=true if the method has it"
            )
        return None

    def best_checkpoint(self, history: Sequence[Line]) -> int | None:
        """The step whose weights to restore after a failure; None if there is none.

        Evaluations without a failure are compared by their training accuracy (unaugmented), since
        a collapsing network forgets training images. Among equals an evaluation less than half
        the way to class collapse wins, then the latest.
        """
        healthy = [
            line
            for number, line in enumerate(history, 1)
            if line["step"] > 0 and "train_loss" in line and self.failure(history[:number]) is None
        ]
        if not healthy:
            return None

        def rank(line: Line) -> tuple[float, bool, float]:
            collapsing = line.get("swallowed", 0) > COLLAPSED / 2
            return line["train_accuracy"], not collapsing, line["step"]

        return int(max(healthy, key=rank)["step"])

    def _past_grace(self, line: Line) -> bool:
        return not self.progress.is_early(line["step"])

    def _position(self, line: Line) -> float:
        """The evaluation's position in the schedule, which may differ from its step."""
        return self.progress.position(int(line["step"]))

    def _where(self, history: Sequence[Line]) -> str:
        return f"at step {history[-1]['step']:.0f} of {self.progress.last}"

    def _collapsed(self, history: Sequence[Line]) -> bool:
        """Whether nearly all pseudo-labels are of one class and the labels are not recognised."""
        if not _one_class(history[-1]):
            return False
        accuracies = [line["train_accuracy"] for line in history if "train_accuracy" in line]
        accuracies = accuracies or [1.0]
        late = self._position(history[-1]) > LEARNED_BY * self.progress.steps
        never_learned = late and _by_chance(accuracies[-1], self.chance)
        return never_learned or accuracies[-1] < max(accuracies) - FORGOTTEN

    def _unused(self, history: Sequence[Line]) -> bool:
        """Whether pseudo-labels were unused at every evaluation of the last UNUSED_FOR."""
        if history[-1].get("kept", 1) >= UNUSED:
            return False
        steps = self.progress.steps
        since = max(GRACE * steps, self._position(history[-1]) - UNUSED_FOR * steps)
        late = [line for line in history if self._position(line) > since]
        return bool(late) and all(line.get("kept", 1) < UNUSED for line in late)

    def _largest_class(self, line: Line) -> str:
        """The class with most pseudo-labels and its share, in brackets; empty if not logged."""
        shares = {key: value for key, value in line.items() if key.startswith("pseudo_")}
        if not shares:
            return ""
        most = max(shares, key=shares.__getitem__)
        number = int(most.removeprefix("pseudo_"))
        name = self.classes[number] if self.classes else f"number {number}"
        return f" ({name}, {shares[most]:.0%})"


def _one_class(line: Line) -> bool:
    """Whether nearly all used pseudo-labels are of one class; False where hardly any was used."""
    return line.get("swallowed", 0) > COLLAPSED and line.get("kept", 1) >= USED
