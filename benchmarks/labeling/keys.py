"""Keys per label on the labelling page, in Chromium: one by one, and with pages of tiles.

    python -m benchmarks run keys tin10 one --most 1000
    python -m benchmarks run keys tin10 tiles
    python -m benchmarks run keys sign-digits tiles

All labelled images of the source are copied into one folder without their labels. An annotator who
knows the labels uses the keyboard alone, and what the page offers: a page of tiles whenever the
button for it is there.
"""

import shutil
import time

import numpy as np

from benchmarks.lib import arguments, record
from benchmarks.lib.chromium import Annotator, chromium, labelling, scratch, unlabelled_copy
from handful.csv_files import read_csv


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("source")
    parser.add_argument("way", choices=("one", "tiles"))
    parser.add_argument("--most", type=int, default=0, help="labels, 0 for all")
    parser.add_argument("--tiles", type=int, choices=(24, 48), help="by default as offered")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds of a look at each image")
    options = parser.parse_args()
    work = scratch()
    truth = unlabelled_copy(options.source, work / "photos")
    most = options.most or len(truth)
    with labelling(work / "photos", work) as (_, address, _), chromium() as page:
        page.goto(address)
        page.wait_for_selector("#frame img")
        if options.tiles:
            page.select_option("#tiles-size", str(options.tiles))
        annotator = Annotator(page, truth, options.wait)
        start = time.perf_counter()
        while annotator.labels < most:
            if options.way == "tiles" and annotator.now()["offer"]:
                annotator.tiles()
            elif not annotator.one():
                break
            if annotator.labels % 250 < 2:
                print(annotator.labels, annotator.keys, flush=True)
        seconds = time.perf_counter() - start
        page.wait_for_function("() => document.getElementById('saving').textContent === ''")
        times = page.evaluate("performance.getEntriesByName('key-to-image').map(e => e.duration)")
        problems = [one for one in page.problems if "404" not in one]
        if problems:
            raise SystemExit(f"the page had problems: {problems[:3]}")
    rows = read_csv(work / "labels.csv")
    wrong = sum(row["label"] != truth[row["file"]] for row in rows)
    figures = {
        "images": len(truth),
        "labels": len(rows),
        "wrong": wrong,
        "keys": annotator.keys,
        "keys_per_label": round(annotator.keys / max(len(rows), 1), 4),
        "pages": annotator.pages,
        "blind": sum(row["origin"] == "random" for row in rows),
        "key_to_image_ms_median": round(float(np.median(times)), 1),
        "key_to_image_ms_p95": round(float(np.quantile(times, 0.95)), 1),
        "seconds": round(seconds, 1),
    }
    name = f"keys {options.source} {options.way}" + (f" {options.tiles}" if options.tiles else "")
    record.append("label", name, "final", figures)
    print(figures)
    shutil.rmtree(work, ignore_errors=True)
