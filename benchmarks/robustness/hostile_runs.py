"""Hostile run folders and mutated records, a thousand each: what happens to those that read them.

    python -m benchmarks run hostile_runs folders 1000
    python -m benchmarks run hostile_runs records 1000

Each is opened, predicted with, followed and reported on (tests/pipeline/test_hostile_runs.py). A
line in results/robustness.jsonl has how many were refused, how many ended in a traceback or hung,
the slowest, and the memory over the imports.
"""

import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.lib import arguments, record
from benchmarks.lib.paths import import_from_tests

import_from_tests()
# Everything that is loaded when it is needed, so that the memory of it is not counted.
import jinja2  # noqa: E402, F401
import matplotlib.figure  # noqa: E402, F401
import pydantic  # noqa: E402, F401
import safetensors.torch  # noqa: E402, F401
import test_hostile_runs as hostile  # noqa: E402

import handful  # noqa: E402
import handful.pipeline.fit  # noqa: E402
import handful.pipeline.record_schema  # noqa: E402
import handful.report  # noqa: E402
from soon import Hang  # noqa: E402

IMPORTS = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, at the most


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("kind", choices=("folders", "records"))
    parser.add_argument("count", type=int, help="how many of them")
    options = parser.parse_args()
    measure(options.kind, options.count)


def measure(kind: str, count: int) -> None:
    work = Path(tempfile.mkdtemp())
    whole = work / "whole"
    run = handful.fit(hostile.IMAGES, settings=hostile.QUICK, precision="fp32", out=whole)
    run.score_test(hostile.IMAGES)
    hostile.used(whole)
    text = (whole / "run.json").read_text()
    refused, faults, hangs, slowest = 0, [], 0, 0.0
    for number in range(count):
        rng, folder = random.Random(number), work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        if kind == "folders":
            hostile.hostile(folder, rng)
        else:
            (folder / "run.json").write_bytes(hostile.mutated(text, rng))
        begun = time.perf_counter()
        try:
            refused += hostile.used(folder, waiting=300) > 0
        except Hang as error:
            hangs += 1
            print(f"{number}: {error}", flush=True)
        except Exception as error:  # a fault of ours, to be counted
            faults.append(f"{number}: {type(error).__name__}: {error}"[:200])
            print(faults[-1], flush=True)
        slowest = max(slowest, time.perf_counter() - begun)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - IMPORTS
    figures = {
        "count": count, "refused": refused, "tracebacks": len(faults), "hangs": hangs,
        "slowest_seconds": round(slowest, 1), "memory_mb": round(grown / 1000),
    }  # fmt: skip
    print(record.append("robustness", f"hostile-{kind}", "final", figures), flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
