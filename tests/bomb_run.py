"""Read a folder of images with two workers, in its own process, and print figures as JSON.

    python tests/bomb_run.py FOLDER

For every file: what is said of it, and the seconds of processor time that one look and one reading
take; for all: the memory over that of the imports, in MB.
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from handful.data import decode, scan, store, thread_pool
from handful.data.sources import load

thread_pool.cores = lambda: 2
scan.BATCH = store.BATCH = 1
seconds: dict[str, list[float]] = {}


def highest() -> int:
    """Peak memory of this program in kilobytes; getrusage would count the parent's, too."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def timed(function):
    def run(path, *rest, **options):
        begun = time.thread_time()
        try:
            return function(path, *rest, **options)
        finally:
            seconds.setdefault(path.name, []).append(time.thread_time() - begun)

    return run


def main(folder: Path) -> None:
    before = highest()
    begun = time.perf_counter()
    decode.inspect, decode.read = timed(decode.inspect), timed(decode.read)
    images = load(folder, labeled=False)
    images.store.pixels(np.arange(len(images)), 32, "crop", 3)
    found = {name: "" for name in images.names}
    found.update({skip.name: skip.reason for skip in images.store.skipped})
    peak = highest() - before
    wall = time.perf_counter() - begun
    print(json.dumps({"found": found, "seconds": seconds, "memory_mb": peak / 1000, "wall": wall}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
