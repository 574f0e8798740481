"""How alike images are, and how alike images of this kind are anyway.

The likeness of two images is the correlation of their grey levels, slightly blurred, where they fit
best after a small move of the camera. How much likeness says depends on the images: digits are
all alike, photographs are not. So a pair is judged by its distance, 1 - likeness, against the
distance from each of the two to its tenth nearest image. Copies cannot move that reference: if
every image is there twice, the tenth nearest becomes the fifth, which is hardly nearer.

By how much closer a pair must be than the tenth nearest follows from the dimension d in which the
images vary. Where images lie by chance, the nearest of k is nearer than c times the distance to the
k-th with probability k c^d. Here, distances are squared ones.

Source of the estimate of d: Levina and Bickel 2004, "Maximum likelihood estimation of intrinsic
dimension"; here from the distances to two neighbours only.

Letters in shapes: N images, P pairs, W values of a window.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.imageset import ImageSet
from handful.devices import one_thread

SIZE = 32  # pixels; images are compared at this size, stretched and grey
NEIGHBOUR = 10  # the neighbour whose distance a pair is judged by; bursts have fewer images
CHANCE = 0.0185  # probability, for one image, that a pair counts as close by chance
CLOSEST, CLOSE = 0.1, 0.2  # bounds of the share of the reference that counts as close
ALIKE = 0.9  # least likeness of images of one scene, however unlike the others are
LEAST = 1e-6  # a distance; less is rounding
BLOCK = 2048  # pairs compared at a time
KEPT = 5_000  # pictures in memory
LOWEST = 6  # frequencies in each direction that tell first whether pictures may be alike
ROUNDING = 1e-4  # of a squared distance between windows
SURE = 1e-2  # least variance of a window, of its squares, that rounding leaves exact enough
FEW = 300  # images whose pairs one thread compares faster


@dataclass(frozen=True)
class Moves:
    """The moves of the camera that are tried to make two images fit."""

    reach: int  # pixels of SIZE to each side; what is compared is the middle that this leaves
    sides: tuple[int, ...]  # pixels; sides to which the second image is resized before


NEAR = Moves(2, (32,))  # for near-copies
SCENE = Moves(4, (32, 36))  # for images of one scene


_kept: dict[bytes, Tensor] = {}  # fingerprint of the pixels → (1, 32, 32) uint8


def thumbnails(images: ImageSet) -> Tensor:
    """(N, 1, 32, 32) uint8 of the images; may raise `Vanished`.

    They are not cached on disk; the last KEPT stay in memory, since a fit looks at the labelled
    photos three times, and reads large ones for as long as it learns.
    """
    marks = [mark.tobytes() for mark in images.store.fingerprints[images.rows]]
    found = {mark: kept for mark in marks if (kept := _kept.get(mark)) is not None}
    new = {mark: at for at, mark in enumerate(marks) if mark not in found}
    if new:
        missing = images[np.array(list(new.values()))]
        batches = missing.stream(SIZE, "stretch", channels=1)
        read = (picture.clone() for batch in batches for picture in batch)
        made = dict(zip(new, read, strict=True))
        found |= made
        _kept.update(made)
        for mark in list(_kept)[:-KEPT]:
            _kept.pop(mark, None)
    rows = [found[mark] for mark in marks]
    return torch.stack(rows) if rows else torch.empty(0, 1, SIZE, SIZE, dtype=torch.uint8)


def likeness_of_all(pictures: Tensor, moves: Moves) -> Tensor:
    """Likeness (N, N) of all pairs of pictures (N, 1, 32, 32) uint8, at most 1."""
    with one_thread(len(pictures) < FEW):
        middle = _middle(pictures, moves)
        found = torch.full((len(pictures), len(pictures)), -1.0)
        for window in _windows(pictures, moves):
            torch.maximum(found, middle @ window.T, out=found)
        return found.maximum(found.T)


def likeness_between(some: Tensor, others: Tensor, moves: Moves) -> Tensor:
    """Likeness (A, B) of each of the pictures (A, 1, 32, 32) with each of (B, 1, 32, 32)."""
    found = torch.full((len(some), len(others)), -1.0)
    middle, other_middle = _middle(some, moves), _middle(others, moves)
    for window in _windows(others, moves):
        torch.maximum(found, middle @ window.T, out=found)
    for window in _windows(some, moves):
        torch.maximum(found, window @ other_middle.T, out=found)
    return found


def likeness_of_pairs(pictures: Tensor, first: Tensor, second: Tensor, moves: Moves) -> Tensor:
    """Likeness (P,) of the pictures (N, 1, 32, 32) at the positions `first` and `second` (P,)."""
    parts = [pictures.new_empty(0, dtype=torch.float32)]
    for one, two in zip(first.split(BLOCK), second.split(BLOCK), strict=True):
        best = torch.full((len(one),), -1.0)
        for here, there in ((one, two), (two, one)):
            middle = _middle(pictures[here], moves)
            for window in _windows(pictures[there], moves):
                best = best.maximum((middle * window).sum(1))
        parts.append(best)
    return torch.cat(parts)


def may_be_alike(
    pictures: Tensor,
    first: Tensor,
    second: Tensor,
    least: float,
    moves: Moves,
    between: Callable[[], None] = lambda: None,
) -> Tensor:
    """Whether each pair (P,) may have a likeness of `least`; those that are denied have less.

    Windows are of length 1, so those with that likeness are at most sqrt(2 - 2 least) apart. So
    are they in a few of their frequencies, which every picture is reduced to once.

    Args:
        between: called after every block of pictures was read.
    """
    made = _Lowest(moves)
    middles = [pictures.new_empty(0, made.width, dtype=torch.float32)]
    for block in pictures.split(BLOCK):
        middles.append(made.of_middle(block))
        between()
    middle = torch.cat(middles)  # (N, axes)
    # Either picture may be the one that is moved.
    moved, other = torch.cat([first, second]), torch.cat([second, first])
    order = moved.argsort()
    counts = torch.bincount(moved, minlength=len(pictures)).split(BLOCK)
    gap = torch.full((len(moved),), torch.inf)
    for number, here in enumerate(order.split([int(count.sum()) for count in counts])):
        if not len(here):
            continue
        windows = made.of_windows(pictures[number * BLOCK : (number + 1) * BLOCK])
        for some in here.split(BLOCK):
            apart = windows[moved[some] - number * BLOCK] - middle[other[some], None]
            gap[some] = apart.square_().sum(2).amin(1)
        between()
    # It is not a number where rounding is too large to say.
    return ~(gap.view(2, -1).amin(0) > 2 - 2 * least + ROUNDING)


def near_limits(pictures: Tensor, positions: Tensor, among: Tensor, moves: Moves) -> Tensor:
    """Distances (P,) below which the pictures at `positions` (P,) are closer to another by chance.

    Each follows from the picture's own neighbours. So pictures of other kinds do not move it.

    Args:
        pictures: (N, 1, 32, 32) uint8.
        among: positions of pictures of the same kind, which may hold `positions`.
    """
    k = _neighbour(len(among))
    if k < 1:
        return torch.zeros(len(positions))
    rows = [
        _distances_to(pictures, some, among, moves).topk(2 * k, largest=False).values
        for some in positions.split(BLOCK)
    ]
    nearest = torch.cat(rows)
    at_k = nearest[:, k - 1]
    return at_k * _close(_dimension((nearest[:, -1] / at_k).log()), k)


class Reference(NamedTuple):
    """How far apart images are that have nothing to do with each other."""

    distance: Tensor  # (P,) from each image to its NEIGHBOUR-th nearest
    close: float  # share of that distance below which a pair is closer than by chance
    dimension: float  # in which the images vary, as estimated


def reference_of(distances: Tensor) -> Reference:
    """The reference from distances (P, M) from each image to M images; infinite to itself."""
    k = _neighbour(distances.shape[1])
    if k < 1 or not len(distances):
        return Reference(torch.zeros(len(distances)), 0.0, 0.0)
    nearest = distances.topk(2 * k, dim=1, largest=False).values
    at_k = nearest[:, k - 1]
    dimension = _dimension((nearest[:, -1] / at_k).log().mean())
    return Reference(at_k, float(_close(dimension, k)), float(dimension))


def _neighbour(images: int) -> int:
    """The neighbour whose distance a pair is judged by, among so many images; 0 for too few."""
    return max(0, min(NEIGHBOUR, (images - 1) // 2))


def _dimension(growth: Tensor) -> Tensor:
    """The dimension from the logarithm of the distance to the 2 k-th nearest over the k-th.

    Distances are squared ones: (r_2k / r_k)^d = 2 gives d = 2 log 2 / log of their ratio.
    """
    return (2 * 0.6931 / growth.clamp_min(1e-3)).clamp_max(100.0)


def _close(dimension: Tensor, k: int) -> Tensor:
    """Share of the distance to the k-th nearest below which a pair is closer than by chance."""
    return ((CHANCE / k) ** (2 / dimension)).clamp(CLOSEST, CLOSE)


def distances_from(likeness: Tensor) -> Tensor:
    """Distances (N, N) of likeness (N, N), infinite from each image to itself."""
    return (1 - likeness).clamp_min(LEAST).fill_diagonal_(torch.inf)


def _distances_to(pictures: Tensor, some: Tensor, others: Tensor, moves: Moves) -> Tensor:
    likeness = likeness_between(pictures[some], pictures[others], moves)
    distances = (1 - likeness).clamp_min(LEAST)
    return distances.masked_fill(some[:, None] == others[None, :], torch.inf)


def _middle(pictures: Tensor, moves: Moves) -> Tensor:
    """(N, W) the middle of each picture, blurred, with mean 0 and length 1; 0 if it is flat."""
    return _normalized(_blurred(pictures.float())[_cut(moves.reach, moves.reach, moves)])


def _windows(pictures: Tensor, moves: Moves) -> Iterator[Tensor]:
    """(N, W) as `_middle`, for every move of the camera."""
    for side in moves.sides:
        resized = pictures.float()
        if side != SIZE:
            resized = _resized(resized, (side, side))
        blurred = _blurred(resized)
        centre = (side - SIZE) // 2 + moves.reach
        steps = range(centre - moves.reach, centre + moves.reach + 1)
        for down in steps:
            for right in steps:
                yield _normalized(blurred[_cut(down, right, moves)])


class _Lowest:
    """The lowest frequencies of windows (the discrete cosine transform), without their mean.

    All steps from a picture to the frequencies of all its windows are linear, and the same for rows
    and columns, so they are one matrix: from 32 pixels to the frequencies at each place. Only the
    lengths of the windows are not linear.
    """

    def __init__(self, moves: Moves) -> None:
        self.side = SIZE - 2 * moves.reach
        at = (torch.arange(self.side) + 0.5) * torch.pi / self.side
        waves = F.normalize(torch.cos(torch.arange(LOWEST)[:, None] * at))  # (LOWEST, side)
        self.width = LOWEST**2 - 1
        self.sides = []
        for side in moves.sides:
            stretched = torch.eye(SIZE)
            if side != SIZE:
                stretched = _resized(stretched[None, None], (side, SIZE))[0, 0]
            blurred = F.avg_pool1d(F.pad(stretched.T, (1, 1), mode="replicate"), 3, 1).T
            first, count = (side - SIZE) // 2, 2 * moves.reach + 1
            placed = [
                F.pad(waves, (at, side - at - self.side)) for at in range(first, first + count)
            ]
            inside = [F.pad(torch.ones(self.side), (at, side - at - self.side))
                      for at in range(first, first + count)]  # fmt: skip
            self.sides.append((blurred, torch.cat(placed) @ blurred, torch.stack(inside)))
        self.reach = moves.reach

    def of_middle(self, pictures: Tensor) -> Tensor:
        """(N, axes) of the middle of each picture."""
        blurred, waves, inside = self.sides[0]
        middle = slice(self.reach * LOWEST, (self.reach + 1) * LOWEST)
        at = slice(self.reach, self.reach + 1)
        return self._of(pictures, blurred, waves[middle], inside[at])[:, 0]

    def of_windows(self, pictures: Tensor) -> Tensor:
        """(N, windows, axes) of each picture, for every move of the camera."""
        return torch.cat([self._of(pictures, *side) for side in self.sides], 1)

    def _of(self, pictures: Tensor, blurred: Tensor, waves: Tensor, inside: Tensor) -> Tensor:
        """(N, windows, axes); not a number where a window is flat next to its picture."""
        x = pictures[:, 0].float()
        x = x - x.mean((1, 2), keepdim=True)
        count = len(inside)
        found = (waves @ x @ waves.T).unflatten(2, (count, LOWEST)).unflatten(1, (count, LOWEST))
        found = found.transpose(2, 3).flatten(3).flatten(1, 2)[..., 1:]  # (N, windows, axes)
        x = blurred @ x @ blurred.T
        total = inside @ x @ inside.T  # (N, count, count)
        squares = inside @ x.square() @ inside.T
        length = squares - total.square() / self.side**2
        length[length < SURE * squares] = torch.nan
        return found / length.clamp_min(1e-6).sqrt().flatten(1)[..., None]


def _cut(down: int, right: int, moves: Moves) -> tuple[slice | type(Ellipsis), ...]:  # type: ignore[valid-type]
    side = SIZE - 2 * moves.reach
    return (..., slice(down, down + side), slice(right, right + side))


def _resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(pictures, size=size, mode="bilinear", antialias=True)


def _blurred(pictures: Tensor) -> Tensor:
    """Means of 3 x 3 pixels: moves of part of a pixel then matter less."""
    return F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _normalized(windows: Tensor) -> Tensor:
    values = windows.flatten(1)
    return F.normalize(values - values.mean(1, keepdim=True), eps=1e-3)
