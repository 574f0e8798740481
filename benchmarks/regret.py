"""What `auto` loses to the best method of each cell: source x labels per class x draw.

    python benchmarks/regret.py dev   --sources digits --per-class 10 --draws 1
    python benchmarks/regret.py final --budget 3m

Every method gets the same draws and the same budget; `auto` has to estimate within it, too, where
the others spend all of it on the one fit. A cell's regret is the mean accuracy of the best single
method less that of `auto`. Development draws are seeds from 1000 on, scored on a part cut from the
training images. A cell that has its line is not made again.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

import handful
import record
from handful.choose import AUTO
from handful.data.splits import development
from handful.job import Reporter
from handful.prepare import hide
from handful.wording import in_seconds

METHODS = (
    AUTO,
    "features",
    "self_training",
    "propagation",
    "supervised",
    "fixmatch",
    "fine_tuning",
)
SOURCES = ("digits", "mnist", "fashion-mnist", "cifar10-jpeg", "sign-digits", "tin10")
OWN_TEST = {"sign-digits": 0.3}  # the share that is set aside where a source has no test part
DEVELOPMENT = 0.2  # of the labelled training images, or less: what development draws are scored on
MOST = 10_000


def main() -> None:
    options = parse()
    first = options.first + (1000 if options.part == "dev" else 0)
    for source in options.sources:
        images = None
        for per_class in options.per_class:
            for draw in range(first, first + options.draws):
                for method in options.methods:
                    if not recorded(source, method, per_class, draw, options):
                        images = images or opened(source, options.part)
                        run(images, source, method, per_class, draw, options)
            show(source, per_class, options)


def opened(source: str, part: str) -> handful.ImageSet:
    folder = Path(os.environ.get("HANDFUL_DATA", "")) / source
    fraction = OWN_TEST.get(source, 0.0)
    images = handful.load(folder if folder.is_dir() else source, test_fraction=fraction, seed=0)
    if part == "final":
        return images
    held = min(MOST, int(DEVELOPMENT * len(images.labeled)))
    return development(replace(images, test=None), held, seed=1000)


def run(
    images: handful.ImageSet,
    source: str,
    method: str,
    per_class: int,
    draw: int,
    options: argparse.Namespace,
) -> None:
    seen = hide(images, per_class, draw)
    assert seen.test is not None
    begun = time.perf_counter()
    fitted = handful.fit(
        seen,
        method,
        seed=draw,
        budget=in_seconds(options.budget),
        estimate="folds" if method == AUTO else "none",
        origins=dict.fromkeys(seen.names, "random"),
        reporter=Reporter(say=lambda text: print(text, flush=True)),
    )
    seconds = time.perf_counter() - begun
    figures = {
        "test_accuracy": round(fitted.evaluate(seen.test).accuracy, 5),
        "n_test": len(seen.test),
        "seconds": round(seconds, 1),
    }
    if method == AUTO:
        estimate = {key: fitted.estimate[key] for key in ("accuracy", "low", "high")}
        figures |= {"estimate": estimate, "choice": fitted.record["choice"]}
        for row in fitted.record["choice"]:
            print(f"  {row['method']} {row['accuracy']}, {row['seconds']} s: {row['verdict']}")
    settings = {key: fitted.record[key] for key in ("method", "schedule", "backbone", "input")}
    print(source, per_class, draw, method, figures["test_accuracy"], flush=True)
    if not options.dry:
        more = {"draw": draw, "per_class": per_class, "budget": options.budget}
        name = f"{source}-{method}"
        record.append("regret", name, options.part, figures, settings=settings, **more)


def cell(source: str, method: str, per_class: int, options: argparse.Namespace) -> dict[int, float]:
    """Draw → accuracy, of the lines that are there."""
    wanted = (f"{source}-{method}", options.part, per_class, options.budget)
    return {
        line["draw"]: line["figures"]["test_accuracy"]
        for line in record.read("regret")
        if (line["name"], line["kind"], line["per_class"], line["budget"]) == wanted
    }


def recorded(
    source: str, method: str, per_class: int, draw: int, options: argparse.Namespace
) -> bool:
    return draw in cell(source, method, per_class, options)


def show(source: str, per_class: int, options: argparse.Namespace) -> None:
    """The mean of every method on the draws that all of them have, and the regret."""
    cells = {method: cell(source, method, per_class, options) for method in METHODS}
    cells = {method: found for method, found in cells.items() if found}
    shared = set.intersection(*map(set, cells.values())) if cells else set()
    if not shared:
        return
    means = {method: mean(found[draw] for draw in shared) for method, found in cells.items()}
    shown = ", ".join(f"{method} {100 * share:.1f}" for method, share in means.items())
    print(f"{source}, {per_class} per class, {len(shared)} draws: {shown}")
    if AUTO in means and len(means) > 1:
        best = max(share for method, share in means.items() if method != AUTO)
        print(f"  regret {100 * (best - means[AUTO]):.1f} points", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--per-class", nargs="+", type=int, default=[4, 10])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
