"""Image files made to cost memory or time, read by two workers: what they cost.

    python -m benchmarks run bombs

The files are those of tests/bombs.py. A line in results/robustness.jsonl has how many were read and
how many refused, the most seconds of processor time that one of them took, and the memory over the
imports.
"""

import tempfile
from pathlib import Path

from benchmarks.lib import arguments, record
from benchmarks.lib.paths import import_from_tests

import_from_tests()
import test_bombs  # noqa: E402

import bombs  # noqa: E402


def main() -> None:
    arguments.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bombs.write(Path(folder) / "bombs")
        run = test_bombs.run(Path(folder) / "bombs", Path(folder) / "cache")
    slowest = max(run["seconds"], key=lambda name: max(run["seconds"][name]))
    found = run["found"]
    wrong = [name for name in found if not test_bombs.right(bombs.BOMBS[name][1], found[name])]
    print(*wrong)
    figures = {
        "count": len(found), "refused": sum(map(bool, found.values())), "unexpected": len(wrong),
        "slowest_cpu_seconds": round(max(run["seconds"][slowest]), 1),
        "slowest": slowest, "memory_mb": round(run["memory_mb"]),
        "wall_seconds": round(run["wall"]),
    }  # fmt: skip
    print(record.append("robustness", "image-bombs", "final", figures), flush=True)


if __name__ == "__main__":
    main()
