"""Whether a training has gone wrong, told from its history alone, and where it was still sound.

Two ways to go wrong show in the figures of a semi-supervised method. One class swallows the
guesses: they are nearly all of it, and the network knows the labelled images no longer, or half
way still does not. Without that second sign they may well be right, where most unlabelled images
are of one class; then it is said and nothing is done. Or guesses that were used are used no more.
Both are judged after the first fifth of the steps. A third shows in any training, and at its end:
no more of the images it learned from are right than share their commonest label. A fourth, a loss
that is no number, the loop itself notices. No test label is looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.methods.schedule import ScheduleProgress

Line = dict[str, float]

SETTLED = 0.2  # share of the steps before which figures are not judged
SWALLOWED = 0.9  # of the way from its prior to all guesses: one class has taken over
FORGOTTEN = 0.25  # share of the labelled images right at best and wrong now
HALF = 0.5  # share of the steps by which something must be known of the labels
UNUSED, USED = 0.01, 0.1  # shares of the unlabelled images: none, and some
LONG = 0.3  # share of the steps: so long guesses must go unused


@dataclass(frozen=True)
class Collapse:
    """What went wrong, and whose weights were kept."""

    step: int  # at which it was noticed
    reason: str
    kept: int  # the step of the averaged weights that are kept
    right: float | None = None  # share of the labelled images that these get right
    chance: float = 0.0  # and that their commonest label alone would

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
    """What went wrong in the trainings of a run, from its run.json; empty where nothing did."""
    stage, found = (record.get("stage") or {}).get("collapse"), record["training"].get("collapse")
    told = [f"in the stage without labels {stage}"] if stage else []
    return "; ".join([*told, *([Collapse(**found).text] if found is not None else [])])


def _by_chance(right: float, chance: float) -> bool:
    return 0 < chance < 1 and right <= chance


@dataclass(frozen=True)
class FailureDetector:
    """What the history of a training says of it; each question is about its last look.

    Args:
        progress: of the training.
        chance: share of the commonest label among the images of `train_accuracy`. With 0 or 1, no
            labels or those of one class, less can be told.
        classes: their names, in the order of the labels; without them numbers stand for them.
    """

    progress: ScheduleProgress
    chance: float = 0.0
    classes: Sequence[str] = ()

    def failure(self, history: Sequence[Line]) -> str | None:
        """What is wrong, or None."""
        if not history or not self._settled(history[-1]):
            return None
        if self._swallowed(history):
            return (
                f"one class has taken over the guesses{self._commonest(history[-1])} "
                f"{self._where(history)}; try --set align=true, if the method has it, or a lower "
                f"learning rate"
            )
        if self._unused(history) and max(one.get("kept", 0) for one in history) >= USED:
            return (
                f"the unlabelled images are used no more {self._where(history)}: no guess is sure "
                f"enough; try a lower learning rate, or a lower --set threshold if the method "
                f"has it"
            )
        return None

    def nothing_learned(self, history: Sequence[Line]) -> str | None:
        """A sentence where nothing was learned from the labels, or None."""
        right = history[-1].get("train_accuracy", 1.0)
        if not _by_chance(right, self.chance):
            return None
        return (
            f"nothing is known of the labelled images {self._where(history)}: {right:.0%} of them "
            f"are right, and {self.chance:.0%} have the commonest label; try a lower learning rate "
            f"or more steps"
        )

    def should_stop(self, history: Sequence[Line]) -> bool:
        """Whether one class had taken over at this look and at the one before: time to stop."""
        both = [history[: len(history) - back] for back in (0, 1)]
        return all(some and self._settled(some[-1]) and self._swallowed(some) for some in both)

    def remark(self, history: Sequence[Line]) -> str | None:
        """A sentence on guesses that did no harm, and perhaps no good; or None."""
        if not history:
            return None
        if self._unused(history) and max(line.get("kept", 0) for line in history) < USED:
            return (
                f"hardly any guess was sure enough to be used in {history[-1]['step']:.0f} steps: "
                "the labels alone were learned from; "
                "train for longer, or try a lower --set threshold if the method has it"
            )
        if self._settled(history[-1]) and _lopsided(history[-1]):
            return (
                f"nearly all guesses are of one class{self._commonest(history[-1])} "
                f"{self._where(history)}, far more than of the labels. That is right if most "
                f"unlabelled images are of it; if not, it has taken over: look at some "
                f"predictions, and try --set align=true if the method has it"
            )
        return None

    def best_checkpoint(self, history: Sequence[Line]) -> int | None:
        """The step of the look to go back to, None if there is none.

        Of the looks at which nothing was wrong it is the latest of those that got most training
        images right, unaugmented: a network that is being swallowed forgets some of them. One at
        which a class was already more than half on the way is taken if there is no other.
        """
        sound = [
            line
            for number, line in enumerate(history, 1)
            if line["step"] > 0 and "train_loss" in line and self.failure(history[:number]) is None
        ]
        if not sound:
            return None

        def merit(line: Line) -> tuple[float, bool, float]:
            on_the_way = line.get("swallowed", 0) > SWALLOWED / 2
            return line["train_accuracy"], not on_the_way, line["step"]

        return int(max(sound, key=merit)["step"])

    def _settled(self, line: Line) -> bool:
        return self._place(line) > SETTLED * self.progress.steps

    def _place(self, line: Line) -> float:
        """Where in the schedule a look was, which may have been done in more steps or fewer."""
        return self.progress.position(int(line["step"]))

    def _where(self, history: Sequence[Line]) -> str:
        return f"at step {history[-1]['step']:.0f} of {self.progress.last}"

    def _swallowed(self, history: Sequence[Line]) -> bool:
        """Whether one class has taken over, and what was known of the labels with it."""
        if not _lopsided(history[-1]):
            return False
        known = [line["train_accuracy"] for line in history if "train_accuracy" in line] or [1.0]
        late = self._place(history[-1]) > HALF * self.progress.steps
        never = late and _by_chance(known[-1], self.chance)
        return never or known[-1] < max(known) - FORGOTTEN

    def _unused(self, history: Sequence[Line]) -> bool:
        """Whether guesses have gone unused for long."""
        if history[-1].get("kept", 1) >= UNUSED:
            return False
        steps = self.progress.steps
        since = max(SETTLED * steps, self._place(history[-1]) - LONG * steps)
        late = [line for line in history if self._place(line) > since]
        return bool(late) and all(line.get("kept", 1) < UNUSED for line in late)

    def _commonest(self, line: Line) -> str:
        """The class with most guesses and its share, in brackets; nothing where it is not known."""
        shares = {key: value for key, value in line.items() if key.startswith("pseudo_")}
        if not shares:
            return ""
        most = max(shares, key=shares.__getitem__)
        number = int(most.removeprefix("pseudo_"))
        name = self.classes[number] if self.classes else f"number {number}"
        return f" ({name}, {shares[most]:.0%})"


def _lopsided(line: Line) -> bool:
    """Whether nearly all guesses that counted are of one class; a few that did tell nothing."""
    return line.get("swallowed", 0) > SWALLOWED and line.get("kept", 1) >= USED
