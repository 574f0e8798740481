"""Compare methods: the same draws of labels for each, every one scored once on the test part.

    python examples/compare_methods.py digits comparison/

Differences are taken draw by draw, which rules out what a lucky draw does to all of them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import handful
from handful.pipeline.compare import compare


def main(
    source: str,
    out: Path,
    methods: Sequence[str] = ("supervised", "fixmatch"),
    draws: int = 3,
    **options: object,
) -> None:
    images = handful.load(source)
    comparison = compare(
        images, methods, range(draws), per_class=10, out=out, estimate="none", **options
    )
    found = comparison.as_json()
    for row in found["summary"]:
        print(f"{row['method']}: {row['mean']:.1%} over {row['n']} draws")
    for pair in found["paired"]:
        print(f"{pair['a']} minus {pair['b']}: {100 * pair['difference']:+.1f} points")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
