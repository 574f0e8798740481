"""How time and memory grow with the number of files: listing, `data`, and a shard of `predict`.

    python -m benchmarks run growth                      # a thousand, ten and a hundred thousand
    python -m benchmarks run growth --most 6             # and a million, which was not run

The files are generated PNGs of 8 by 8 pixels, all different, a thousand in a folder. Each figure is
of a process of its own: the first `data` looks into every file, the second one knows them. The time
of a process that does nothing is taken off. `slope` is the exponent of the growth over the last
factor of ten: 1 is linear.
"""

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.cluster.sources import predict
from benchmarks.lib import arguments, record
from handful.data.scan import listing

SHARD = "1/16"
IN_A_FOLDER = 1000
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def make_files(folder: Path, start: int, end: int) -> None:
    """Write the files of these numbers, with pixels that no other number has."""
    for number in range(start, end):
        place = folder / f"{number // IN_A_FOLDER:04d}"
        if number % IN_A_FOLDER == 0:
            place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:07d}.png", "PNG")


def measured(made: Path, photos: Path, files: int) -> dict[str, dict[str, float]]:
    """Seconds and peak memory in MB of each job on the files, with an empty cache."""
    cache = made / f"cache-{files}"
    began = time.perf_counter()
    assert len(listing(photos, False).files) == files
    found = {"listing": {"seconds": time.perf_counter() - began}}
    jobs = {
        "data": ["data", str(photos)],
        "data again": ["data", str(photos)],
        f"predict --shard {SHARD}": [
            "predict", str(made / "run"), str(photos), "--shard", SHARD,
            "--out", str(made / f"parts-{files}"),
        ],
    }  # fmt: skip
    for name, words in jobs.items():
        seconds, peak = predict(words, cache, ONE_THREAD)
        found[name] = {"seconds": seconds, "peak_mb": peak}
    return found


def slopes(by_files: dict[int, dict[str, dict[str, float]]], nothing: float) -> dict[str, float]:
    """Exponent of the growth of the seconds, over the last two numbers of files."""
    *_, few, many = sorted(by_files)
    grown = {}
    for job, found in by_files[many].items():
        start = 0.0 if job == "listing" else nothing
        before = max(by_files[few][job]["seconds"] - start, 0.05)
        after = max(found["seconds"] - start, 0.05)
        grown[job] = round(math.log(after / before) / math.log(many / few), 2)
    return grown


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--most", type=int, default=5, help="power of ten; 5 is 100,000 files")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        fit = ["fit", "digits", "--per-class", "10", "--method", "supervised", "--estimate", "none"]
        fit += ["--set", "steps=100", "--out", str(made / "run")]
        predict(fit, made / "cache-fit", ONE_THREAD)
        nothing, _ = predict(["methods"], made / "cache-fit", ONE_THREAD)
        by_files: dict[int, dict[str, Any]] = {}
        done = 0
        for power in range(3, given.most + 1):
            make_files(made / "photos", done, 10**power)
            done = 10**power
            by_files[done] = measured(made, made / "photos", done)
            print(done, by_files[done], file=sys.stderr)
        figures = {
            "files": {str(n): found for n, found in by_files.items()},
            "nothing": nothing,
            "slope": slopes(by_files, nothing),
        }
        record.append("growth", "files", given.kind, figures)


if __name__ == "__main__":
    main()
