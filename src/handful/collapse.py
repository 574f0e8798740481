"""Whether a training has gone wrong, told from its history alone, and where it was still sound.

Two ways to go wrong show in the figures of a semi-supervised method: one class swallows the
guesses, or guesses that were used are used no more. Both are judged after the first fifth of the
steps. A third shows in any training, and at its end: no more of the images it learned from are
right than share their commonest label. A fourth, a loss that is no number, the loop itself notices.
No test label is looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = dict[str, float]

SETTLED = 0.2  # share of the steps before which figures are not judged
SWALLOWED = 0.9  # of the way from its prior to all guesses: one class has taken over
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


def recorded(record: Mapping[str, Any]) -> str:
    """What went wrong in the trainings of a run, from its run.json; empty where nothing did."""
    stage, found = (record.get("stage") or {}).get("collapse"), record["training"].get("collapse")
    told = [f"in the stage without labels {stage}"] if stage else []
    return "; ".join([*told, *([Collapse(**found).text] if found is not None else [])])


def trouble(history: Sequence[Line], steps: int) -> str | None:
    """What is wrong at the last look, or None."""
    if not history or history[-1]["step"] <= SETTLED * steps:
        return None
    line = history[-1]
    where = f"at step {line['step']:.0f} of {steps}"
    if line.get("swallowed", 0) > SWALLOWED:
        shares = {key: value for key, value in line.items() if key.startswith("pseudo_")}
        most = max(shares, key=shares.__getitem__, default="")
        number = f" (number {most.removeprefix('pseudo_')}, {shares[most]:.0%})" if most else ""
        return (
            f"one class has taken over the guesses{number} {where}; try --set align=true, if the "
            f"method has it, or a lower learning rate"
        )
    if _unused(history, steps) and max(one.get("kept", 0) for one in history) >= USED:
        return (
            f"the unlabelled images are used no more {where}: no guess is sure enough; try a "
            f"lower learning rate, or a lower --set threshold if the method has it"
        )
    return None


def _by_chance(right: float, chance: float) -> bool:
    return 0 < chance < 1 and right <= chance


def unlearned(line: Line, steps: int, chance: float) -> str | None:
    """A sentence where the last look shows that nothing was learned from the labels, or None.

    Args:
        chance: share of the commonest label among the images of `train_accuracy`. With 0 or 1,
            no labels or those of one class, nothing can be told.
    """
    if not _by_chance(line.get("train_accuracy", 1.0), chance):
        return None
    return (
        f"nothing is known of the labelled images at step {line['step']:.0f} of {steps}: "
        f"{line['train_accuracy']:.0%} of them are right, and {chance:.0%} have the commonest "
        f"label; try a lower learning rate or more steps"
    )


def hopeless(history: Sequence[Line], steps: int) -> bool:
    """Whether one class had taken over at the last look and at the one before: time to stop."""
    both = history[-2:]
    settled = all(line["step"] > SETTLED * steps for line in both)
    swallowed = [line.get("swallowed", 0) > SWALLOWED for line in both]
    return settled and len(both) == 2 and all(swallowed)


def idle(history: Sequence[Line], steps: int) -> str | None:
    """A sentence where hardly any guess was ever sure enough to be used: no harm, and no gain."""
    if _unused(history, steps) and max(line.get("kept", 0) for line in history) < USED:
        return (
            "hardly any guess was sure enough to be used: the labels alone were learned from; "
            "train for longer, or try a lower --set threshold if the method has it"
        )
    return None


def _unused(history: Sequence[Line], steps: int) -> bool:
    """Whether guesses have gone unused for long."""
    now = history[-1]["step"]
    late = [line for line in history if line["step"] > max(SETTLED * steps, now - LONG * steps)]
    return bool(late) and all(line.get("kept", 1) < UNUSED for line in late)


def soundest(history: Sequence[Line], steps: int) -> int | None:
    """The step of the look to go back to, None if there is none.

    Of the looks at which nothing was wrong it is the latest of those that got most training
    images right, unaugmented: a network that is being swallowed forgets some of them.
    """
    sound = [
        line
        for number, line in enumerate(history, 1)
        if line["step"] > 0 and "train_loss" in line and trouble(history[:number], steps) is None
    ]
    if not sound:
        return None
    best = max(line["train_accuracy"] for line in sound)
    return int(max(line["step"] for line in sound if line["train_accuracy"] == best))
