"""Map a function over many files with threads, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from handful.cores import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 0
) -> Iterator[Result]:
    """`map` with threads: results in order, and at most two results per worker in memory.

    Threads suffice, because Pillow releases the interpreter's lock while it decodes: two cores read
    60,000 small JPEG files in about 12 seconds. Processes would have to copy the results. An error
    of `items` is raised after the results of the items before it, as by `map`.

    Args:
        threads: 0 is one for each core that the process may use.
    """
    source, ended = iter(items), False
    error: Exception | None = None
    threads = threads or cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            while True:
                while not ended and len(waiting) <= 2 * threads:
                    try:
                        waiting.append(pool.submit(function, next(source)))
                    except StopIteration:
                        ended = True
                    except Exception as raised:
                        ended, error = True, raised
                if not waiting:
                    break
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    if error is not None:
        raise error
