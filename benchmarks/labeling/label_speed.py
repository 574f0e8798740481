"""Times of the labelling page: the first image, the next image, a refit; and its memory.

python -m benchmarks run label_speed first --images 5000
python -m benchmarks run label_speed first --images 100000 --side 64
python -m benchmarks run label_speed keys
python -m benchmarks run label_speed refit

first   from the command to the first image on the screen of Chromium, with an empty cache;
        photographs of 12 megapixels for 5,000 (20 different ones, linked under many names)
keys    from a key to the next image, while features are being made
refit   a new head and a new order, at 5,000 and 50,000 images: processor time, one thread
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.labeling.sessions import NoJournal, NoWriter
from benchmarks.lib import arguments, record
from benchmarks.lib.chromium import Annotator, chromium, labelling, scratch, unlabelled_copy
from handful.labeling import learning
from handful.labeling import session as sessions
from handful.labeling.opinions import opinion_of
from handful.labeling.session import Session

DIFFERENT = 20


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("what", choices=("first", "keys", "refit"))
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=4_000, help="longer side of the photographs")
    options = parser.parse_args()
    if options.what == "first":
        figures = first(options.images, options.side)
        name = f"first image {options.images}"
    elif options.what == "keys":
        figures, name = keys(), "key to image"
    else:
        figures, name = refit(), "refit"
    record.append("label", name, "final", figures)
    print(figures)


def first(images: int, side: int) -> dict[str, Any]:
    work = scratch()
    photographs(work / "photos", images, side)
    times, memory = [], []
    for _ in range(3):
        cache = scratch()
        with chromium() as page:  # the browser is open already
            page.goto("about:blank")
            with labelling(work / "photos", work, cache=cache) as (process, address, start):
                page.goto(address)
                page.wait_for_selector("#frame img")
                times.append(time.perf_counter() - start)
                time.sleep(20)
                memory.append(resident(process.pid))
        shutil.rmtree(cache, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return {
        "images": images,
        "side": side,
        "seconds": [round(t, 2) for t in times],
        "seconds_worst": round(max(times), 2),
        "memory_mb_after_20_s": max(memory),
    }


def photographs(folder: Path, images: int, side: int) -> None:
    """Noise and gradients of `side` x 3/4 side pixels, about as large as photographs of a phone."""
    folder.mkdir()
    height, width = side * 3 // 4, side
    draws = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] / (height + width) * 180
    for number in range(DIFFERENT):
        noise = draws.normal(0, 12, (height // 4 + 1, width // 4 + 1, 3))
        noise = noise.repeat(4, 0).repeat(4, 1)[:height, :width]
        pixels = np.clip(ramp + noise + draws.integers(0, 70, 3), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=90)
    for number in range(DIFFERENT, images):
        os.link(folder / f"{number % DIFFERENT:06d}.jpg", folder / f"{number:06d}.jpg")


def resident(pid: int) -> int:
    """Resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


def keys() -> dict[str, Any]:
    """Label 150 photographs of tin10, one every 0.7 s, with an empty cache of features."""
    work, cache = scratch(), scratch()
    truth = unlabelled_copy("tin10", work / "photos")
    with labelling(work / "photos", work, cache=cache) as (_, address, _), chromium() as page:
        page.goto(address)
        page.wait_for_selector("#frame img")
        annotator = Annotator(page, truth, wait=0.7)
        while annotator.labels < 150:
            annotator.one()
        learner = page.evaluate("window.handful.state.learner")
        times = page.evaluate("performance.getEntriesByName('key-to-image').map(e => e.duration)")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)
    return {
        "labels": annotator.labels,
        "median_ms": round(float(np.median(times)), 1),
        "p95_ms": round(float(np.quantile(times, 0.95)), 1),
        "worst_ms": round(max(times), 1),
        "features_at_the_end": learner["features"],
        "features_wanted": learner["features_wanted"],
    }


def refit() -> dict[str, Any]:
    """Random features with 10 clusters; times do not depend on what they mean."""
    sessions._Writer = NoWriter  # type: ignore[assignment, misc]
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for images in (5_000, 50_000):
        draws = np.random.default_rng(0)
        labels = draws.integers(0, 10, images)
        centres = draws.normal(size=(10, 1792)).astype(np.float32)
        x = torch.empty(images, 1792, dtype=torch.float16)
        for at in range(0, images, 5_000):
            noise = draws.normal(size=(min(5_000, images - at), 1792)).astype(np.float32)
            x[at : at + 5_000] = torch.from_numpy(centres[labels[at : at + 5_000]] + 3 * noise)
        names = [f"{n}.png" for n in range(images)]
        session = Session(names, NoJournal(), Path("/nowhere/labels.csv"))  # type: ignore[arg-type]
        coordinates = learning.map_of(x)
        row = np.arange(images, dtype=np.int32)
        for count in (100, 500, 2_000):
            items = [
                {"number": n, "kind": "label", "label": f"c{labels[n]}", "seen": "blind"}
                for n in session.shuffled[:count]
            ]
            session.answer(str(count), items)
            times = []
            for version in range(3):
                start = time.process_time()
                opinion_of(session, x, row, list(range(images)), coordinates, 1.0, version)
                times.append(time.process_time() - start)
            figures[f"seconds_{images}_images_{count}_labels"] = round(max(times), 2)
    return figures


if __name__ == "__main__":
    main()
