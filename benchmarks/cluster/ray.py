"""Cells of `compare --on ray`, against one process with one thread.

    python -m benchmarks run ray

12 cells of three methods on features and 4 that train a network, on the digits, no estimates, by
one command. The cluster is a real one on this machine: a worker with one CPU for each of two cores.
Each way runs in processes of its own, begins with the features of all images in the cache and
nothing else, and its time holds the start of the cluster. In the last way a worker is killed in the
middle of a cell. Figures must be equal, and each cell there once.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster.sources import predict
from benchmarks.lib import arguments, record

LOOK = 0.5  # seconds between two looks at the workers
KILL_AFTER = 25.0  # seconds of work, of all workers together: in the middle of a cell
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
METHODS = "features,self_training,propagation,supervised"
COMPARE = ["--per-class", "10", "--methods", METHODS, "--draws", "4", "--estimate", "none"]
# Which format is faster is measured by each cache, and on a busy machine the answers differ.
COMPARE += ["--set", "supervised.steps=2000", "--precision", "fp32"]


class Workers(threading.Thread):
    """Watches the workers of a cluster, by a text in their environment."""

    def __init__(self, cache: Path, kill_after: float = 0) -> None:
        """`kill_after` kills one worker when workers were at work for so many seconds; 0: none."""
        super().__init__(daemon=True)
        self.mark, self.kill_after = f"HANDFUL_CACHE={cache}".encode(), kill_after / LOOK
        self.peaks: dict[int, int] = {}  # process → MB
        self.seconds: dict[int, float] = {}  # process → of the processor
        self.killed, self.ended = 0, threading.Event()

    def run(self) -> None:
        looks = 0
        while not self.ended.wait(LOOK):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    name = (folder / "cmdline").read_bytes()
                    if not name.startswith(b"ray::"):
                        continue
                    if self.mark not in (folder / "environ").read_bytes().split(b"\0"):
                        continue
                    lines = (folder / "status").read_text().splitlines()
                    times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                except OSError:  # it has ended
                    continue
                peak = next((line.split()[1] for line in lines if line.startswith("VmHWM")), "0")
                self.peaks[int(folder.name)] = int(peak) // 1024
                ticks = sum(map(int, times))
                self.seconds[int(folder.name)] = ticks / os.sysconf("SC_CLK_TCK")
                looks += name.startswith(b"ray::_work")
                if self.kill_after and not self.killed and looks >= self.kill_after:
                    if name.startswith(b"ray::_work"):
                        os.kill(int(folder.name), signal.SIGKILL)
                        self.killed = int(folder.name)


@contextmanager
def watched(cache: Path, kill_after: float = 0) -> Iterator[Workers]:
    workers = Workers(cache, kill_after)
    workers.start()
    try:
        yield workers
    finally:
        workers.ended.set()
        workers.join()


def figures_of(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of a comparison, without their times."""
    return [{key: value for key, value in cell.items() if key != "seconds"} for cell in cells]


def cells(folder: Path) -> dict[str, Any]:
    """Seconds of each way, and whether its figures are those of one thread."""
    known = folder / "known"
    words = ["embed", "digits", "--out", str(folder / "digits.npz")]
    predict(words, known, ONE_THREAD)
    ways: dict[str, dict[str, Any]] = {}
    expected: list[dict[str, Any]] = []
    for way, kill_after in (("one thread", 0), ("ray", 0), ("ray, killed", KILL_AFTER)):
        cache, out, on = folder / f"cache-{way}", folder / way, way != "one thread"
        shutil.copytree(known, cache)
        words = ["compare", "digits", *COMPARE, "--out", str(out), *(["--on", "ray"] if on else [])]
        with watched(cache, kill_after) as workers:
            before = os.times()
            seconds, _ = predict(words, cache, ONE_THREAD)
            after = os.times()
        own = after.children_user + after.children_system
        own -= before.children_user + before.children_system
        made = json.loads((out / "comparison.json").read_text())["cells"]
        expected = expected or figures_of(made)
        ways[way] = {
            "cells": len(made),
            "files": len(list(out.glob("*-[0-9]*.json"))),
            "equal": figures_of(made) == expected,
            "seconds": seconds,
            "seconds_of_cells": [cell["seconds"] for cell in made],
            "cpu_seconds": round(own, 1),  # with Ray, of the command without the workers
            "cpu_seconds_of_workers": [round(one, 1) for one in workers.seconds.values()],
            "killed": bool(workers.killed),
        }
        print(way, ways[way], file=sys.stderr)
    times = round(ways["one thread"]["seconds"] / ways["ray"]["seconds"], 2)
    return {"compare": COMPARE, "ways": ways, "times_as_fast": times, "load": os.getloadavg()[0]}


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        record.append("ray", "cells", given.kind, cells(Path(made)))


if __name__ == "__main__":
    main()
