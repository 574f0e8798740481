"""How soon `handful fit` has a first classifier, and all images classified: 12-megapixel photos.

    python -m benchmarks run first_classifier --images 2000 --labels 40
    python -m benchmarks run first_classifier --folder kept/ --only warm --until-classified

The images of sign-digits are scaled up to 4000 x 3000 pixels and saved as JPEG files in a temporary
folder: DIFFERENT ones, and variants of them whose quantisation table differs in one value, so that
every file has pixels of its own. `handful fit` runs as a process of its own, with an empty
cache (cold) and then with what it left (warm). Seconds count from the start of the process. With
--folder photos and cache stay for the next call; a warm fit needs what a cold one left there.
`--only screen` keeps what a cold fit prints at its end, and no time: it may share the machine.
"""

import argparse
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lib import arguments, record
from handful.data.cache import data_folder

DIFFERENT = 200
SIZE = (4000, 3000)


def main() -> None:
    options = parse()
    kept = options.folder
    with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as folder:
        root = Path(folder)
        if not (root / "labels.csv").exists():  # it is written last
            make(root, options.images, options.labels)
        if len(list((root / "photos").iterdir())) != options.images:
            sys.exit(f"{root} has another number of photos; name another --folder")
        for name in ("cold", "warm") if options.only is None else (options.only,):
            if name != "warm":
                shutil.rmtree(root / "cache", ignore_errors=True)
            shutil.rmtree(root / "photos-run", ignore_errors=True)
            figures = run(root, options)
            if name == "screen":
                figures = {key: figures[key] for key in ("images", "labels", "screen")}
            print(name, {key: found for key, found in figures.items() if key != "screen"})
            print(figures["screen"], flush=True)
            if not options.dry:
                record.append("first_classifier", name, "final", figures)


def make(root: Path, images: int, labels: int) -> None:
    """The photos, and a table of the labels of the first of them."""
    source = data_folder() / "sign-digits"
    files = sorted(source.glob("*/*"))
    order = np.random.default_rng(0).permutation(len(files))
    shutil.rmtree(root / "photos", ignore_errors=True)
    (root / "photos").mkdir(parents=True)
    rows = []
    for at in range(images):
        path = root / "photos" / f"IMG_{at:05}.jpg"
        if at < min(DIFFERENT, images):
            with Image.open(files[order[at]]) as image:
                image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        else:
            first = root / "photos" / f"IMG_{at % DIFFERENT:05}.jpg"
            path.write_bytes(varied(first.read_bytes(), at // DIFFERENT))
        if at < labels:
            rows.append([path.name, files[order[at]].parent.name])
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "label"], *rows])


def varied(content: bytes, variant: int) -> bytes:
    """A JPEG file whose table for colours begins with another value: other pixels, equal cost."""
    first = content.index(b"\xff\xdb")
    at = content.index(b"\xff\xdb", first + 2) + 5  # marker, length and number of the table
    return content[:at] + bytes([content[at] + variant]) + content[at + 1 :]


def run(root: Path, options: argparse.Namespace) -> dict[str, float | int | str]:
    """Fit in a process, and note when each message comes."""
    command = [sys.executable, "-m", "handful", "fit", "photos/", "--labels", "labels.csv"]
    command += ["--budget", options.budget]
    begun = time.perf_counter()
    environment = {**os.environ, "HANDFUL_CACHE": str(root / "cache"), "COLUMNS": "80"}
    with open(root / "screen.txt", "w+", encoding="utf-8") as screen:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=screen, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = {}
        for line in process.stderr:
            print(f"{time.perf_counter() - begun:6.1f} {line.rstrip()}", flush=True)
            for key, pattern in (("first", "first classifier"), ("classified", "classified")):
                if key not in said and re.search(pattern, line):
                    said[key] = time.perf_counter() - begun
                    if options.until_classified and key == "classified":
                        process.send_signal(signal.SIGINT)  # the fit ends well, with this run
        status = process.wait()
        whole = time.perf_counter() - begun
        screen.seek(0)
        shown = screen.read()
    if status:
        sys.exit(f"handful fit ended with {status}")
    return {
        "images": options.images,
        "labels": options.labels,
        "first_seconds": round(said["first"], 1),
        "classified_seconds": round(said.get("classified", whole), 1),
        "seconds": round(whole, 1),
        "screen": shown.rstrip(),
    }


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--folder", help="keep photos and cache here")
    parser.add_argument("--only", choices=("cold", "warm", "screen"))
    parser.add_argument("--until-classified", action="store_true", help="stop each fit then")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
