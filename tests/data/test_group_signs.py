"""Signs of scenes in names, folders and times."""

import numpy as np
import pytest
from PIL import Image

from handful.data.capture_time import Capture, capture, captures
from handful.data.grouping.signs import Line, numbers, partitions, times
from image_files import save


def together(keys):
    found = {}
    for at, key in enumerate(keys):
        if key is not None:
            found.setdefault(key, []).append(at)
    return sorted(found.values())


def pairs_of(line):
    return sorted(tuple(sorted(pair)) for pair in line.pairs().tolist())


def test_every_beginning_of_a_name_is_a_way_to_group_the_finest_first():
    names = ["c/p1_s1_t1.png", "c/p1_s1_t2.png", "c/p1_s2_t1.png", "c/p2_s1_t1.png"]
    ways = [together(way.keys) for way in partitions(names, ["c"] * 4)]
    assert ways[0] == [[0, 1], [2], [3]]  # p1_s1, p1_s2, p2_s1
    assert [[0, 1, 2], [3]] in ways  # p1, p2
    assert not any(len(way) == 1 for way in ways)


def test_tracks_are_told_apart_by_folder_and_described_by_an_example():
    names = ["a/00012_00001.png", "a/00012_00007.png", "b/00012_00001.png", "b/x.png"]
    way = partitions(names, ["a", "a", "b", "b"])[0]
    assert together(way.keys)[0] == [0, 1]
    assert way.what == "names of files that begin alike, such as '00012_' in 'a/00012_00001.png'"


def test_folders_below_the_classes_are_a_way_to_group():
    names = ["cat/s1/1.png", "cat/s1/2.png", "cat/s2/3.png", "cat/4.png"]
    ways = {way.what: together(way.keys) for way in partitions(names, ["cat"] * 4)}
    assert ways["the folders below the classes"] == [[0, 1], [2]]


@pytest.mark.parametrize(
    "names", [[], ["a.png"], ["a.png", "b.png"], ["IMG_1.png", "IMG_2.png"], ["", "..", "._"]]
)
def test_names_without_groups_give_no_way(names):
    assert partitions(names, ["c"] * len(names)) == []


def test_numbers_near_each_other_are_pairs_within_a_folder_and_a_beginning():
    names = [
        "a/IMG_0001.jpg",
        "a/IMG_0003.jpg",
        "a/IMG_0090.jpg",
        "b/IMG_0001.jpg",
        "a/DSC_0002.jpg",
    ]
    line = numbers(names)
    assert pairs_of(line) == [(0, 1)]
    assert line.apart(0, 1) == 2


def test_numbers_that_no_two_folders_share_count_through_all_of_them():
    names = ["a/IMG_1.jpg", "b/IMG_2.jpg", "a/IMG_3.jpg", "b/IMG_90.jpg"]
    assert pairs_of(numbers(names)) == [(0, 1), (0, 2), (1, 2)]
    apart = ["a/IMG_1.jpg", "a/IMG_2.jpg", "b/IMG_3.jpg", "b/IMG_4.jpg"]
    assert pairs_of(numbers(apart)) == [(0, 1), (2, 3)]  # one folder after the other


@pytest.mark.parametrize("names", [[], ["a.png", "b.png"], ["7.png"]])
def test_names_without_numbers_are_on_no_line(names):
    assert numbers(names) is None


def test_shots_of_one_camera_that_follow_each_other_are_pairs():
    taken = [Capture(0, "A"), Capture(1, "A"), Capture(1, "B"), Capture(5_000, "A"), None]
    assert pairs_of(times(taken, ["x"] * 5)) == [(0, 1)]


def test_times_that_a_program_wrote_say_nothing():
    assert times([Capture(7.0, "A")] * 9 + [Capture(8.0, "A")], ["x"] * 10) is None
    assert times([None] * 6, ["x"] * 6) is None


def test_times_in_names_count_where_files_have_none():
    names = ["IMG_20240131_093015.jpg", "IMG_20240131_093017.jpg", "IMG_20240201_120000.jpg"]
    line = times([None] * 3, names)
    assert pairs_of(line) == [(0, 1)] and line.apart(0, 1) == 2
    assert times([None] * 2, ["IMG_20241331_093015.jpg", "IMG_20240131_993015.jpg"]) is None


def test_an_image_has_pairs_with_so_many_others_at_most():
    line = Line("", ("row",) * 100, np.zeros(100), (1.0,))
    assert np.bincount(line.pairs()[:, 0]).max() == 32


def taken(path, when, part=None, camera="Canon"):
    exif = Image.Exif()
    exif[0x0110] = camera
    exif.get_ifd(0x8769)[0x9003] = when
    if part is not None:
        exif.get_ifd(0x8769)[0x9291] = part
    return save(path, exif=exif)


def test_the_time_of_a_photograph_is_read_from_its_file(tmp_path):
    photo = taken(tmp_path / "a.jpg", "2024:01:31 09:30:15", "250")
    assert capture(photo) == Capture(1706693415.25, "Canon")


@pytest.mark.parametrize("when", ["", "0000:00:00 00:00:00", "yesterday", "2024-01-31 09:30:15"])
def test_a_file_that_does_not_say_when_it_was_taken_has_no_time(tmp_path, when):
    assert capture(taken(tmp_path / "a.jpg", when)) is None


def test_damaged_and_other_files_have_no_time(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM")
    save(tmp_path / "plain.png")
    paths = [tmp_path / "cut.jpg", tmp_path / "plain.png", tmp_path / "missing.jpg"]
    assert captures(paths) == [None, None, None]
