"""The command line of a benchmark."""

import argparse
import sys
from pathlib import Path

RUN = "python -m benchmarks run"


def running() -> str:
    """The name of the benchmark that runs."""
    return Path(sys.argv[0]).stem


def parser(doc: str | None) -> argparse.ArgumentParser:
    """One whose `--help` shows what stands at the top of the module, as it stands there."""
    return argparse.ArgumentParser(
        prog=f"{RUN} {running()}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
