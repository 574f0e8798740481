"""What the list of doubtful labels finds: 5 % of the labels given another class, on known images.

    python -m benchmarks run label_problems dev   --draws 5 --dry
    python -m benchmarks run label_problems final --draws 20

A draw takes `--per-class` labels of each class in the mean from 10,000 images (see coverage.py),
flips 5 % of them and lists the labels that `features` doubts out of fold. Precision is the flipped
share of the list, recall the listed share of the flipped, over all draws together. Wrong labels
that a source has of itself count as right.
"""

import argparse
import json
from typing import Any

import numpy as np

from benchmarks.estimates.coverage import SOURCES, Pool, drawn, tuned
from benchmarks.lib import arguments, record
from handful.evaluation.cross_validation import out_of_fold
from handful.evaluation.label_errors import CONTRADICTED, label_issues

FLIPPED = 0.05
USUAL = 25  # labels per class


def main() -> None:
    options = parse()
    for source in options.sources:
        name = source if options.per_class == USUAL else f"{source} {options.per_class} per class"
        done = [x for x in record.read("label_problems") if x["kind"] == options.part]
        if any(line["name"] == name for line in done) and not options.again:
            print(f"{name}: has its line", flush=True)
            continue
        pool = Pool(source, options.part, options.size)
        first = 1000 if options.part == "dev" else 0
        draws = range(first, first + options.draws)
        figures = summary([run_draw(pool, draw, options) for draw in draws])
        print(name, json.dumps(figures), flush=True)
        if not options.dry:
            settings = {"method": options.method, "size": options.size, "times": CONTRADICTED}
            settings |= {"per_class": options.per_class, "flipped": FLIPPED}
            record.append("label_problems", name, options.part, figures, settings=settings)


def run_draw(pool: Pool, draw: int, options: argparse.Namespace) -> dict[str, int]:
    """How many labels were listed, how many were wrong, and how many were both."""
    positions, _ = drawn(pool, "natural", options.per_class, draw)
    labels = pool.labels[positions].copy()
    wrong = flip(labels, pool.classes, draw)
    seen = pool.features[positions]
    fit = tuned(options.method, seen, labels, pool.classes, draw)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        return fit(seen[train], labels[train], pool.classes, seed)(seen[held])

    groups = None if pool.images.groups is None else pool.images.groups[positions]
    out = out_of_fold(labels, pool.classes, fit_and_predict, seed=draw, groups=groups)
    issues = label_issues(out)  # None: the labels are too few for a list
    listed = {issue.position for issue in issues or ()}
    return {
        "draw": draw,
        "n": len(labels),
        "wrong": len(wrong),
        "shown": int(issues is not None),
        "listed": len(listed),
        "found": len(listed & set(wrong.tolist())),
    }


def flip(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Give 5 % of the labels another class, in place; the positions."""
    generator = np.random.default_rng([seed, 5])
    wrong = generator.choice(len(labels), round(FLIPPED * len(labels)), replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    return wrong


def summary(rows: list[dict[str, int]]) -> dict[str, Any]:
    """The line: precision and recall over all draws, and every draw."""
    listed, wrong, found = (sum(row[key] for row in rows) for key in ("listed", "wrong", "found"))
    return {
        "draws": len(rows),
        "shown": sum(row["shown"] for row in rows),
        "n": max(row["n"] for row in rows),
        "wrong": wrong / len(rows),
        "listed": listed / len(rows),
        "precision": round(found / max(listed, 1), 4),
        "recall": round(found / wrong, 4),
        "every": [{key: row[key] for key in ("draw", "listed", "found")} for row in rows],
    }


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--per-class", type=int, default=USUAL)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--method", default="features", help="or ridge, a plain reference")
    parser.add_argument("--size", type=int, default=96, help="pixels the network sees")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
