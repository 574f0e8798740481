"""Work in threads gives what `map` gives."""

import threading

import numpy as np
import pytest
from PIL import Image

import handful
from handful.data import scan, store
from handful.data.thread_pool import in_order


def test_results_come_in_the_order_of_the_items():
    later = threading.Event()

    def wait_for_the_second(item):
        if item == 0:
            assert later.wait(timeout=60)
        later.set()
        return item * 10

    assert list(in_order(wait_for_the_second, range(5), threads=2)) == [0, 10, 20, 30, 40]


def test_an_error_of_the_items_comes_after_the_results_of_those_before_it():
    def items():
        yield from (1, 2, 3)
        raise OSError("the list ends here")

    found = []
    with pytest.raises(OSError, match="the list ends here"):
        for result in in_order(lambda item: -item, items(), threads=2):
            found.append(result)
    assert found == [-1, -2, -3]


def test_few_items_are_taken_before_their_turn():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), threads=2)
    assert next(results) == 0
    results.close()
    assert len(taken) <= 2 * 2 + 1


def test_an_error_of_the_function_is_raised_in_its_place():
    results = in_order(lambda item: 1 / item, (1, 0), threads=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_tiny_files_of_a_folder_are_decoded_by_one_thread(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, side in (("tiny", 8), ("photos", 200)):
        for label in ("cat", "dog"):
            (tmp_path / name / label).mkdir(parents=True)
            noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / label / "a.png")
    tiny, photos = (handful.load(tmp_path / name) for name in ("tiny", "photos"))
    asked = []

    def spy(function, items, threads=0):
        asked.append(threads)
        return map(function, items)

    monkeypatch.setattr(store, "in_order", spy)
    monkeypatch.setattr(scan, "in_order", spy)
    for images, size in ((tiny, 16), (tiny, 160), (photos, 16)):
        list(images.stream(size))
    assert asked == [1, 0, 0]
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "another"))
    for name in ("tiny", "photos"):
        handful.load(tmp_path / name)
    assert asked[3:] == [1, 0]
