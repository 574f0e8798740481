"""Facts and pixels of many images, as arrays, against the same one by one."""

import numpy as np
import pytest

from handful.data.decode import Facts
from handful.data.decoding.value_range import Values
from handful.data.facts import facts_table, joined
from handful.data.pixel_keys import numbered, pixel_numbers
from handful.data.sources import load
from image_files import save

SEVERAL = [
    Facts(4, 5, True, b"a" * 16),
    Facts(6, 7, False, b"b" * 16, ("alpha", "rotated"), None, True),
    Facts(8, 9, True, b"c" * 16, ("16-bit",), Values(-1.5, 4095.0, True)),
    Facts(1, 65_535, False, b"\0" * 16, ("alpha",), Values(0.0, 0.0, False)),
]


def test_a_table_holds_every_fact():
    assert list(facts_table(SEVERAL)) == SEVERAL
    assert list(facts_table([])) == []


def test_tables_are_joined_and_divided_in_order():
    """Each table numbers its own treatments."""
    parts = [facts_table(SEVERAL[2:]), facts_table([]), facts_table(SEVERAL[1:2])]
    assert list(joined(parts)) == [*SEVERAL[2:], SEVERAL[1]]
    assert list(joined([])) == []
    taken = joined(parts).take(np.array([2, 0]))
    assert list(taken) == [SEVERAL[1], SEVERAL[2]]


def test_images_of_more_than_8_bits_have_ranges():
    table = facts_table(SEVERAL)
    assert table.deep.tolist() == [False, False, True, True]
    assert table.ranges == [SEVERAL[2].values, SEVERAL[3].values]


@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_equal_keys_get_the_number_of_their_first_appearance(n):
    keys = np.random.default_rng(n).integers(0, 3, (n, 16), np.uint8)
    keys[:, 2:15] = 0  # the first two and the last byte differ: 27 keys
    number: dict[bytes, int] = {}
    slow = [number.setdefault(key.tobytes(), len(number)) for key in keys]
    assert numbered(keys).tolist() == slow


def test_blank_images_are_copies_only_where_that_is_asked(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        save(tmp_path / f"{name}.png", seed=seed)
    for name in ("blank-1", "blank-2"):
        save(tmp_path / f"{name}.png", pixels=np.full((8, 8, 3), 9, np.uint8))
    images = load(tmp_path, labeled=False)
    number = dict(zip(images.names, pixel_numbers(images).tolist(), strict=True))
    assert number == {"a.png": 0, "b.png": 1, "blank-1.png": 2, "blank-2.png": 2, "c.png": 0}
    assert pixel_numbers(images, blank_alone=True).tolist() == [0, 1, 2, 3, 0]
