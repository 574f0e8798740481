"""Fit a source on several draws of labels and score each once: the rows of most tables.

    python -m benchmarks run draws mnist-supervised mnist --per-class 10 --draws 0-4
    python -m benchmarks run draws try mnist --per-class 10 --draws 1000-1002 --dev 10000

With --dev N the test part is cut from the training images, and the real one is never read.
A draw that has its line already is not run again; --again runs it all the same.
"""

import argparse
import json
import time

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.cells import in_development
from handful.data.splits import with_test
from handful.pipeline.setup import subsample_labels
from handful.progress import Reporter


def main() -> None:
    options = parse()
    draws = range(options.draws[0], options.draws[-1] + 1)
    kind = "dev" if options.dev else "final"
    if kind == "final" and max(draws) >= 1000 or kind == "dev" and min(draws) < 1000:
        raise SystemExit(
            "draws below 1000 are final; development draws start at 1000, with --dev N"
        )
    images = handful.load(options.source, test_fraction=options.test_fraction, seed=0)
    if options.rest_as_test:
        images = images[:]
    elif options.dev:
        images = in_development(images, options.dev)
    elif images.test is None:
        raise SystemExit("the source has no test part: give --test-fraction or --rest-as-test")
    for draw in draws:
        done = [
            x
            for x in record.read(options.file)
            if (x["name"], x.get("draw"), x["kind"]) == (options.name, draw, kind)
        ]
        if done and not options.again:
            print(f"draw {draw}: {done[-1]['figures']['test_accuracy']:.4f} (kept)", flush=True)
            continue
        print(run(images, options, draw, kind), flush=True)


def run(images: handful.ImageSet, options: argparse.Namespace, draw: int, kind: str) -> str:
    seen = subsample_labels(images, options.per_class, draw)
    if options.rest_as_test:
        seen = with_test(images, seen.unlabeled)
    assert seen.test is not None
    begun = time.perf_counter()
    fitted = handful.fit(
        seen,
        options.method,
        seed=draw,
        backbone=options.backbone,
        size=options.size,
        flips=options.flips,
        estimate=options.estimate,
        precision=options.precision,
        settings=dict(text.split("=", 1) for text in options.set),
        reporter=Reporter(say=lambda text: print(text, flush=True)),
    )
    seconds = time.perf_counter() - begun
    scored = fitted.evaluate(seen.test)
    estimate = fitted.estimate
    figures = {
        "test_accuracy": round(scored.accuracy, 5),
        "n_test": scored.n,
        "seconds": round(seconds, 1),
        "training_seconds": fitted.record["training"]["seconds"],
        "estimate": {k: estimate[k] for k in ("accuracy", "low", "high")} if estimate else None,
    }
    settings = {
        k: fitted.record[k] for k in ("method", "schedule", "backbone", "input", "training")
    }
    if not options.dry:
        record.append(options.file, options.name, kind, figures, draw=draw, settings=settings)
    return f"draw {draw}: {json.dumps(figures)}"


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("name", help="row of the table")
    parser.add_argument("source")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument(
        "--draws", default="0-4", type=lambda text: [int(x) for x in text.split("-")]
    )
    parser.add_argument(
        "--dev", type=int, default=0, metavar="N", help="images of the development part"
    )
    parser.add_argument("--test-fraction", type=float, default=0.0)
    parser.add_argument("--rest-as-test", action="store_true", help="all but the labelled")
    parser.add_argument("--method", default="supervised")
    parser.add_argument("--backbone")
    parser.add_argument("--size", type=int)
    parser.add_argument("--flips", action=argparse.BooleanOptionalAction)
    parser.add_argument("--estimate", default="none")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--file", default="draws", help="benchmarks/results/FILE.jsonl")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
