"""The command line of a benchmark."""

import argparse
import sys
from collections.abc import Sequence
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


def add_cells(
    parser: argparse.ArgumentParser,
    sources: Sequence[str],
    methods: Sequence[str],
    *,
    draws: int,
) -> None:
    """Options for which cells are run (`lib/cells.py`), and with what budget.

    Args:
        sources, methods: all that there are, which are the default.
        draws: the default number of them.
    """
    parser.add_argument("--sources", nargs="+", default=list(sources), choices=sources)
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=methods)
    parser.add_argument("--per-class", nargs="+", type=int, default=[4, 10])
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
