"""Rounds of labelling with whole fits of `auto`: accuracy, estimate and its interval.

    python -m benchmarks run whole_rounds final --draws 3 --sources digits sign-digits

As `rounds`, whose lines stand in the same file: 20 labels of random images, then 40, 80 and 160, as
label-next.csv of the run before offers them ("cover") or at random. Each round is a fit of `auto`
as shipped, networks and ensembles included, in a short budget. Images are divided anew in each
draw, as in `coverage_auto`. Draws that have their line are not made again.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import handful
from benchmarks.estimates.coverage_auto import SHORT, divided
from benchmarks.estimates.rounds import STEPS, summary, together
from benchmarks.lib import arguments, record
from handful.data.imageset import ImageSet
from handful.pipeline.auto.select import AUTO
from handful.text import in_seconds

FILE = "rounds"
SOURCES = ("digits", "sign-digits", "mnist", "cifar10-jpeg")
RULES = ("random", "cover")


def main() -> None:
    options = parse()
    first = options.first + (1000 if options.part == "dev" else 0)
    draws = list(range(first, first + options.draws))
    for source in options.sources:
        for rule in options.rules:
            name = f"{source} {rule} {AUTO}"
            if record.recorded(FILE, name, options.part, draws[0]):
                continue
            rows = []
            for draw in draws:
                images = divided(source, options.part, draw)
                rows.append(run(images, rule, draw, options.budget))
                print(name, draw, rows[-1], flush=True)
            figures = together(rows)
            print(name, summary(figures), flush=True)
            if not options.dry:
                settings = {"budget": options.budget, "labels": STEPS}
                record.append(FILE, name, options.part, figures, draw=draws[0], settings=settings)


def run(images: ImageSet, rule: str, draw: int, budget: str) -> dict[str, Any]:
    """Figures of each step, in lists."""
    begun = time.perf_counter()
    random = np.random.default_rng([draw, 2])
    at = {name: position for position, name in enumerate(images.names)}
    origins = {
        images.names[position]: "random"
        for position in random.choice(images.labeled, STEPS[0], replace=False)
    }
    figures: dict[str, list[Any]] = {}
    for number, step in enumerate(STEPS):
        seen = replace(images.seen([at[name] for name in origins]), test=None)
        with TemporaryDirectory() as folder:
            fitted = handful.fit(
                seen,
                AUTO,
                seed=draw,
                budget=in_seconds(budget),
                origins=origins,
                out=Path(folder) / "run",
                pictures=False,
            )
        assert images.test is not None
        found = {
            "truth": fitted.evaluate(images.test).accuracy,
            **{key: fitted.estimate[key] for key in ("accuracy", "low", "high")},
            "method": fitted.record["method"]["name"],
        }
        for key, value in found.items():
            rounded = round(value, 4) if isinstance(value, float) else value
            figures.setdefault(key, []).append(rounded)
        if number + 1 < len(STEPS):
            more = STEPS[number + 1] - step
            if rule == "random":
                left = [name for name in images[images.labeled].names if name not in origins]
                origins |= dict.fromkeys(random.permutation(left)[:more].tolist(), "random")
            else:
                rows = fitted.record["label_next"][:more]
                origins |= {
                    row["file"]: "random" if row["why"] == "random" else "chosen" for row in rows
                }
    return figures | {"seconds": round(time.perf_counter() - begun, 1)}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--budget", default=SHORT, help="of each fit")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
