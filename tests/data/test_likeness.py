"""Likeness of images, and the reference that copies cannot move."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from handful.data import likeness
from handful.data.imageset import ImageSet
from handful.data.likeness import (
    NEAR,
    SCENE,
    Moves,
    distances_from,
    likeness_between,
    likeness_of_all,
    likeness_of_pairs,
    may_be_alike,
    near_limits,
    reference_of,
    thumbnails,
)
from handful.data.near_duplicates import near_duplicates
from handful.data.sources import load
from handful.data.store import Vanished
from image_files import save, smooth
from scenes import frame, thumbnail
from tiny import stripes


def pictures(*frames):
    return torch.from_numpy(np.stack([thumbnail(one) for one in frames]))


def scenes(count, first=0):
    return pictures(*(frame(first + seed) for seed in range(count)))


def slow_likeness(one, two, reach):
    """The best correlation of the middle of one picture with a window of another, in loops."""

    def blurred(picture):
        padded = np.pad(picture.numpy()[0].astype(float), 1, mode="edge")
        return np.array(
            [[padded[y : y + 3, x : x + 3].mean() for x in range(32)] for y in range(32)]
        )

    def best(middle, other):
        middle = blurred(middle)[reach : 32 - reach, reach : 32 - reach]
        found = -1.0
        for y in range(2 * reach + 1):
            for x in range(2 * reach + 1):
                window = blurred(other)[y : y + 32 - 2 * reach, x : x + 32 - 2 * reach]
                found = max(found, np.corrcoef(middle.ravel(), window.ravel())[0, 1])
        return found

    return max(best(one, two), best(two, one))


def test_likeness_is_the_best_correlation_over_all_small_moves():
    some = pictures(frame(1), frame(1, right=2), frame(2))
    moves = Moves(2, (32,))
    expected = [[slow_likeness(a, b, 2) for b in some] for a in some]
    assert torch.allclose(likeness_of_all(some, moves), torch.tensor(expected).float(), atol=1e-4)


@pytest.mark.parametrize("moves", [NEAR, SCENE])
def test_all_ways_to_compare_agree(moves):
    some = scenes(5)
    every = likeness_of_all(some, moves)
    torch.testing.assert_close(likeness_between(some[:2], some, moves), every[:2])
    first, second = torch.tensor([0, 3, 1]), torch.tensor([4, 2, 1])
    pairs = likeness_of_pairs(some, first, second, moves)
    torch.testing.assert_close(pairs, every[first, second])
    torch.testing.assert_close(every, every.T)


def test_moved_and_darker_frames_are_alike_and_others_are_not():
    some = pictures(frame(1), frame(1, right=3, down=-2, light=0.8), frame(2))
    every = likeness_of_all(some, NEAR)
    assert every[0, 1] > 0.95 and every[0, 2] < 0.8


@pytest.mark.parametrize("moves", [NEAR, SCENE])
@pytest.mark.parametrize("least", [0.6, 0.8, 0.95])
def test_pairs_that_may_not_be_alike_are_not(moves, least):
    some = torch.cat([scenes(40), *(pictures(frame(seed, right=1)) for seed in range(20))])
    first, second = torch.cartesian_prod(torch.arange(60), torch.arange(60)).T
    may = may_be_alike(some, first, second, least, moves)
    likeness = likeness_of_pairs(some, first, second, moves)
    assert bool((likeness[~may] < least).all())
    assert 60 < int((likeness >= least).sum()) <= int(may.sum()) < 3600


def test_a_window_that_rounding_leaves_nothing_of_may_be_alike():
    """All but one column is grey levels 200 and 201, in the same places."""
    draw = torch.Generator().manual_seed(0)
    some = (200 + torch.rand(1, 1, 32, 32, generator=draw).round()).repeat(2, 1, 1, 1)
    some[1, :, :, 0] = 0
    some = some.byte()
    first, second = torch.tensor([0]), torch.tensor([1])
    assert likeness_of_pairs(some, first, second, NEAR) > 0.99
    assert may_be_alike(some, first, second, 0.99, NEAR).all()


def test_a_flat_picture_is_like_nothing():
    some = torch.cat([torch.full((1, 1, 32, 32), 9, dtype=torch.uint8), scenes(1)])
    assert likeness_of_all(some, NEAR)[0].abs().max() == 0


def test_doubling_every_image_hardly_moves_the_limits():
    some = scenes(60)
    alone = near_limits(some, torch.arange(60), torch.arange(60), NEAR)
    doubled = near_limits(torch.cat([some, some]), torch.arange(60), torch.arange(120), NEAR)
    assert float((doubled / alone).median()) > 0.75


def test_the_reference_is_the_tenth_nearest_and_the_dimension_that_of_the_points():
    points = torch.rand(800, 3, generator=torch.Generator().manual_seed(0))
    distances = (torch.cdist(points, points) ** 2).fill_diagonal_(torch.inf)
    known = reference_of(distances)
    assert torch.equal(known.distance, distances.sort(dim=1).values[:, 9])
    assert known.dimension == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_give_no_reference(count):
    known = reference_of(distances_from(torch.ones(count, count)))
    assert known.close == 0 and len(known.distance) == count
    every = torch.arange(count)
    assert near_limits(scenes(2), every, every, NEAR).tolist() == [0.0] * count


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_near_copies_are_found_however_many_images_have_one(share):
    rng = np.random.default_rng(0)
    originals = [frame(seed) for seed in range(60)]
    copied = round(share * 60)
    copies = [
        frame(seed, *rng.integers(-1, 2, 2), light=rng.uniform(0.9, 1)) for seed in range(copied)
    ]
    found = {pair[:2] for pair in near_duplicates(pictures(*originals, *copies))}
    assert found == {(seed, 60 + seed) for seed in range(copied)}


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_near_copies_are_found_in_a_folder_of_scenes_and_digits(share):
    """Digits resemble each other far more than scenes do; neither kind moves the other's limits."""
    own = torch.Generator().manual_seed(0)
    digits = torch.from_numpy(load_digits().images[:1600]).float()[:, None] * 15.9
    originals = torch.cat([scenes(100), F.interpolate(digits, (32, 32), mode="bilinear").byte()])
    chosen = torch.randperm(1700, generator=own)[: round(share * 1700)]
    moved = 0.9 * (0.7 * originals[chosen] + 0.3 * originals[chosen].roll(1, dims=3))
    noisy = moved + 8 * torch.randn(moved.shape, generator=own)
    pairs = near_duplicates(torch.cat([originals, noisy.round().clamp(0, 255).byte()]))
    right = {(int(original), 1700 + at) for at, original in enumerate(chosen)}
    found = [original for original, copy, _ in pairs if (original, copy) in right]
    assert sum(one < 100 for one in found) >= 0.97 * int((chosen < 100).sum())
    assert sum(one >= 100 for one in found) >= 0.75 * int((chosen >= 100).sum())
    assert len(pairs) - len(found) <= 0.005 * 1700


def test_limits_do_not_depend_on_pictures_of_other_kinds():
    flecks = torch.rand(60, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    both = torch.cat([scenes(60), (255 * flecks).byte()])
    alone = near_limits(both, torch.arange(60), torch.arange(60), NEAR)
    beside = near_limits(both, torch.arange(120), torch.arange(120), NEAR)[:60]
    assert float((beside / alone - 1).abs().median()) < 0.05


def test_pictures_of_known_images_are_not_read_again(monkeypatch):
    images = stripes(n=12, labeled=4, seed=41)
    expected = torch.cat(list(images.stream(32, "stretch", channels=1)))
    assert torch.equal(thumbnails(images), expected)
    read = []
    stream = ImageSet.stream

    def counted(self, *how, **more):
        read.append(len(self))
        return stream(self, *how, **more)

    monkeypatch.setattr(ImageSet, "stream", counted)
    again = stripes(n=12, labeled=4, seed=41)
    some = again[np.array([5, 3, 3, 11])]
    assert torch.equal(thumbnails(some), expected[[5, 3, 3, 11]]) and not read
    more = stripes(n=16, seed=42)
    assert len(thumbnails(more)) == 16 and read == [16]
    assert thumbnails(images[:0]).shape == (0, 1, 32, 32)


def test_pictures_in_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(likeness, "KEPT", 5)
    monkeypatch.setattr(likeness, "_kept", {})
    images = stripes(n=12, labeled=4, seed=43)
    expected = torch.cat(list(images.stream(32, "stretch", channels=1)))
    for _ in range(2):
        assert torch.equal(thumbnails(images), expected) and len(likeness._kept) == 5


def test_pictures_of_files_that_are_gone_are_not_remembered(tmp_path):
    for seed in range(3):
        save(tmp_path / f"{seed}.png", smooth(40, 50, seed=100 + seed))
    images = load(tmp_path, labeled=False)
    (tmp_path / "1.png").unlink()
    before = dict(likeness._kept)
    with pytest.raises(Vanished):
        thumbnails(images)
    assert likeness._kept == before
