"""What the tests cost, and whether they pass on a machine with much else to do.

    python -m benchmarks run suite                        # the quick ones, in one process
    python -m benchmarks run suite --beside 4             # with four busy processes beside them
    python -m benchmarks run suite --which all-but-slow

A line in results/suite.jsonl has how many tests passed, were skipped and failed, and the seconds
of user and system time of the process that runs them and of those that it has waited for.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.lib import arguments, record
from benchmarks.lib.paths import ROOT

WHICH = {
    "quick": "not slow and not thorough",
    "thorough": "thorough and not slow",
    "all-but-slow": "not slow",
}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def processor_seconds() -> float:
    """Of all processes that this one has started and waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(which: str, workers: str) -> dict[str, float]:
    """Counts of the tests, and their time."""
    spread = ["-p", "no:xdist"] if workers == "1" else ["-n", workers, "--dist", "loadfile"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", WHICH[which], *spread, f"--junitxml={report}"]
        begun, before = time.perf_counter(), processor_seconds()
        subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT)
        spent, wall = processor_seconds() - before, time.perf_counter() - begun
        counts = ElementTree.parse(report).getroot().find("testsuite").attrib
    tests, skipped, failures, errors = (
        int(counts[key]) for key in ("tests", "skipped", "failures", "errors")
    )
    failed = failures + errors
    return {
        "tests": tests, "passed": tests - skipped - failed, "skipped": skipped, "failed": failed,
        "cpu_seconds": round(spent, 1), "wall_seconds": round(wall, 1),
    }  # fmt: skip


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--which", choices=WHICH, default="quick")
    parser.add_argument("--beside", type=int, default=0, help="busy processes beside the tests")
    parser.add_argument("--workers", help="as for pytest -n; 1, or auto with --beside")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    options = parser.parse_args()
    workers = options.workers or ("auto" if options.beside else "1")
    load = os.getloadavg()[0]
    with busy(options.beside):
        figures = run(options.which, workers)
    processes = os.cpu_count() if workers == "auto" else int(workers)
    figures |= {"processes": processes, "load_before": round(load, 2)}
    name = f"{options.which}-tests" + (f"-beside-{options.beside}" if options.beside else "")
    more = {"real_data": "HANDFUL_DATA" in os.environ}
    print(record.append("suite", name, options.kind, figures, **more))
    sys.exit(figures["failed"] > 0)


if __name__ == "__main__":
    main()
