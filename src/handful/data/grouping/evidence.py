"""Whether images that a sign puts together look more alike than others of the same classes.

A pair wins against another image of the same class as one of the two, where it is more alike than
that image and the other of the two. Pairs of unrelated images win half of the time. Frames of one
scene nearly always win: images of one kind, such as breeds of dogs, win more often than half of the
time too, but not nearly always. So the share of wins tells scenes from kinds.

Letters in shapes: N images, P pairs.
"""

from dataclasses import dataclass

import numpy as np

SURE = 0.9  # least share of wins of images that are surely of one scene
LIKELY = 0.6  # the same of images that may be
FEWEST = 5  # units (groups or pairs) below which nothing is said
RARE = 0.99  # share of unrelated pairs that are less alike than a pair that looks like one scene


@dataclass(frozen=True)
class Verdict:
    """What the look of images says of a sign."""

    wins: float = 0.5  # mean share of wins
    least: float = 0.0  # lower end of what the share may be: two standard errors below
    units: int = 0  # groups, or pairs, that were looked at

    @property
    def sure(self) -> bool:
        return self.units >= FEWEST and self.least >= SURE

    @property
    def likely(self) -> bool:
        return self.units >= FEWEST and self.least >= LIKELY


def of_keys(
    likeness: np.ndarray, classes: np.ndarray, keys: np.ndarray, known: np.ndarray
) -> Verdict:
    """The verdict on a grouping.

    Args:
        likeness: (N, N) of the images.
        classes: (N,) class numbers.
        keys: (N,) group numbers that are looked at, -1 for none.
        known: (N,) numbers of groups that are sure already: pairs within one do not count.
    """
    wins: dict[int, list[float]] = {}
    for label in np.unique(classes):
        mine = np.flatnonzero(classes == label)
        for one in mine:
            if keys[one] < 0:
                continue
            mates = mine[(keys[mine] == keys[one]) & (known[mine] != known[one])]
            others = mine[keys[mine] != keys[one]]
            if len(mates) and len(others):
                share = _share_won(likeness[one, mates], likeness[one, others])
                wins.setdefault(int(keys[one]), []).append(share)
    return _verdict(np.array([np.mean(shares) for shares in wins.values()]))


def of_pairs(
    likeness: np.ndarray,
    classes: np.ndarray,
    known: np.ndarray,
    pairs: np.ndarray,
    near: np.ndarray,
) -> Verdict:
    """The verdict on pairs (P, 2) of positions.

    Args:
        likeness: (N, N) of the images.
        classes: (N,) class numbers.
        known: (N,) numbers of groups that are sure already: all pairs between two of them count as
            one, since they look alike or not together.
        near: (Q, 2) pairs that may be of one scene: they are no unrelated images to compare with.
    """
    related = np.zeros(likeness.shape, bool)
    related[near[:, 0], near[:, 1]] = related[near[:, 1], near[:, 0]] = True
    np.fill_diagonal(related, True)
    wins: dict[tuple[int, int], list[float]] = {}
    for one, two in pairs:
        shares = [
            _share_won(likeness[here, [there]], likeness[here, others])
            for here, there in ((one, two), (two, one))
            if len(others := np.flatnonzero((classes == classes[there]) & ~related[here]))
        ]
        if shares:
            unit = (int(known[[one, two]].min()), int(known[[one, two]].max()))
            wins.setdefault(unit, []).append(float(np.mean(shares)))
    return _verdict(np.array([np.mean(shares) for shares in wins.values()]))


def rare_likeness(likeness: np.ndarray, classes: np.ndarray, near: np.ndarray) -> float:
    """The likeness that RARE of the pairs of one class that are not in `near` (Q, 2) stay below."""
    unrelated = np.triu(classes[:, None] == classes[None, :], 1)
    unrelated[near.min(1), near.max(1)] = False
    found = likeness[unrelated]
    if len(found) < 1 / (1 - RARE):
        found = likeness[np.triu(np.ones(likeness.shape, bool), 1)]
    return float(np.quantile(found, RARE)) if len(found) else 1.0


def _share_won(likeness: np.ndarray, against: np.ndarray) -> float:
    """The mean share of `against` that is below each of `likeness`; equal ones count half."""
    ranked = np.sort(against)
    below = np.searchsorted(ranked, likeness, "left") + np.searchsorted(ranked, likeness, "right")
    return float(below.mean() / (2 * len(ranked)))


def _verdict(wins: np.ndarray) -> Verdict:
    """Of the shares of wins of each unit, with one unit more that wins as often as it loses."""
    if not len(wins):
        return Verdict()
    mean = (float(wins.sum()) + 0.5) / (len(wins) + 1)
    error = float(wins.std()) / np.sqrt(len(wins))
    return Verdict(mean, mean - 2 * error, len(wins))
