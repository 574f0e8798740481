"""Where the parts of the repository are."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
PIPELINE = ROOT / "src" / "handful" / "pipeline"
TESTS = (ROOT / "tests", ROOT / "tests" / "data", ROOT / "tests" / "pipeline")


def import_from_tests() -> None:
    """Let what the tests share, and some of the tests, be imported by name."""
    for folder in map(str, TESTS):
        if folder not in sys.path:
            sys.path.append(folder)
