"""Groups found among labelled images: near-copies, tracks, bursts, and else none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from handful.data.grouping import find as find_module
from handful.data.grouping.find import NEAR_COPIES, find_groups
from handful.data.sources import load
from scenes import frame

CLASSES = ("cat", "dog")
NEAR = ((0, 0), (2, -1), (-2, 2))  # moves of the camera
FAR = ((0, 0), (11, -4))


def burst(root, naming, scenes=12, moves=NEAR, **options):
    """Frames of each of several scenes, their names given by naming(scene, frame)."""
    for scene in range(scenes):
        for number, (right, down) in enumerate(moves):
            path = root / CLASSES[scene % 2] / f"{naming(scene, number)}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = frame(scene, right, down)
            extra = {key: value(scene, number) for key, value in options.items()}
            Image.fromarray(pixels).save(path, quality=90, **extra)
    return load(root)


def plain(root, count, naming):
    for scene in range(count):
        path = root / CLASSES[scene % 2] / f"{naming(scene)}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame(scene)).save(path, quality=90)
    return load(root)


def letters(*numbers):
    return "".join(
        "qwertyuiopasdfghjklz"[number % 20]
        for number in np.random.default_rng(numbers).integers(0, 20, 9)
    )


def shares(found, scenes):
    same = scenes[:, None] == scenes[None, :]
    together = found.groups[:, None] == found.groups[None, :]
    pairs = np.triu(np.ones_like(same), 1).astype(bool)
    return (same & together & pairs).sum() / max((same & pairs).sum(), 1), (together & ~same).sum()


def scenes_in(images, naming, scenes=12):
    place = {
        f"{CLASSES[scene % 2]}/{naming(scene, number)}.jpg": scene
        for scene in range(scenes)
        for number in range(3)
    }
    return np.array([place[name] for name in images.names])


def test_a_burst_is_found_by_its_look_alone(tmp_path):
    images = burst(tmp_path, letters)
    found = find_groups(images)
    right, wrong = shares(found, scenes_in(images, letters))
    assert right > 0.9 and wrong == 0 and found.signs == (NEAR_COPIES,)
    assert found.likely is None and found.scenes < 16


@pytest.mark.parametrize("naming", [lambda scene: f"IMG_{scene:04d}", letters])
def test_images_of_different_scenes_are_in_no_group_whatever_their_names(tmp_path, naming):
    found = find_groups(plain(tmp_path, 40, naming))
    assert found.scenes == 40 and found.signs == () and found.likely is None


def test_tracks_are_found_by_their_names_where_their_look_agrees(tmp_path):
    naming = lambda scene, number: f"{scene:05d}_{number:05d}"  # noqa: E731
    images = burst(tmp_path, naming, moves=FAR)
    found = find_groups(images)
    right, wrong = shares(found, scenes_in(images, naming))
    assert right == 1 and wrong == 0
    assert any(sign.startswith("names of files that begin alike") for sign in found.signs)
    assert (
        shares(
            find_groups(burst(tmp_path / "b", letters, moves=FAR)),
            scenes_in(burst(tmp_path / "c", letters, moves=FAR), letters),
        )[0]
        < 0.9
    )


def test_names_that_put_unlike_images_together_are_not_followed(tmp_path):
    images = plain(tmp_path, 40, lambda scene: f"{scene // 4:05d}_{scene:05d}")
    found = find_groups(images)
    assert found.scenes == 40 and found.signs == () and found.likely is None


def test_time_tells_bursts_that_look_too_different(tmp_path):
    def exif(scene, number):
        made = Image.Exif()
        seconds = 37 * scene
        made.get_ifd(0x8769)[0x9003] = f"2024:05:01 08:{seconds // 60:02d}:{seconds % 60:02d}"
        made.get_ifd(0x8769)[0x9291] = str(number * 3)
        return made

    images = burst(tmp_path, letters, moves=FAR, exif=exif)
    with_time = shares(find_groups(images), scenes_in(images, letters))
    for path in tmp_path.glob("*/*.jpg"):
        Image.open(path).save(path, quality=90)
    images = load(tmp_path)
    without = shares(find_groups(images), scenes_in(images, letters))
    assert with_time[0] > without[0] and with_time[1] == 0


def test_exact_copies_stay_together_and_few_images_do_no_harm(tmp_path):
    images = plain(tmp_path, 4, lambda scene: f"{scene}")
    again = images[np.array([0, 0, 1, 2])]
    found = find_groups(replace(again, groups=np.array([0, 0, 1, 2])))
    assert found.groups[0] == found.groups[1] and found.scenes == 3
    assert find_groups(images[:1]).scenes == 1 and find_groups(images[:0]).scenes == 0


def test_of_many_labels_a_part_is_looked_at_and_all_are_grouped(tmp_path, monkeypatch):
    naming = lambda scene, number: f"{scene:05d}_{number:05d}"  # noqa: E731
    images = burst(tmp_path, naming, scenes=30)
    scenes = scenes_in(images, naming, scenes=30)
    monkeypatch.setattr(find_module, "RUN", 15)
    monkeypatch.setattr(find_module, "MOST", 45)
    assert len(find_module._part(images.names)) <= 45
    assert shares(find_groups(images), scenes) == (1, 0)
    monkeypatch.setattr(find_module, "MOST_COPIES", 60)
    assert shares(find_groups(images), scenes) == (1, 0)


def test_the_same_images_give_the_same_groups(tmp_path):
    images = burst(tmp_path, letters)
    assert (find_groups(images).groups == find_groups(load(tmp_path)).groups).all()


def test_images_that_are_alike_by_degrees_are_no_scene():
    apart = 0.5 + 0.01 * np.random.default_rng(0).random((40, 40))
    place = np.cumsum([0, 0.01, 0.02, 0.04, 0.08, 0.16])  # each next one is twice as far
    apart[:6, :6] = abs(place[:, None] - place[None, :])
    apart = np.minimum(apart, apart.T)
    likeness = torch.from_numpy(1 - apart).float()
    assert find_module._near_copies(likeness) == []
    apart[10, 11] = apart[11, 10] = 0.02
    likeness = torch.from_numpy(1 - apart).float()
    assert [set(pair) for pair in find_module._near_copies(likeness)] == [{10, 11}]
