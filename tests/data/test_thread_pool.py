"""Work in threads gives what `map` gives."""

import threading

import pytest

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
