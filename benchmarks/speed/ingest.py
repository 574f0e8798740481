"""Seconds and peak memory to open a folder of images, beside a plain PIL loop.

    python -m benchmarks run ingest cifar10-jpeg              # 60,000 small JPEG files, 32 pixels
    python -m benchmarks run ingest photos --photos 10000     # twelve-megapixel photos, 224 pixels

The folder is looked for in HANDFUL_DATA; `photos` are made in a temporary folder (40 different
ones, linked under many names: a file costs the same to read under each). Every phase runs in a
process of its own with an empty or a filled cache, so that its peak memory is its own; the time
of `import` is not counted. Then one new photograph is added: "one more" is to be compared with
"open and decode", both from `load` to the pixels. The plain loop opens, converts, resizes and
keeps one file after another. The files are in the system's page cache throughout, for both.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lib import arguments, record
from benchmarks.lib.memory import peak_mb
from benchmarks.lib.paths import ROOT
from handful.data.cache import data_folder

PHASES = (
    "plain", "open and decode", "one more", "open", "decode", "open again", "decode again",
)  # fmt: skip
WHOLE = ("open and decode", "one more")


def measure(phase: str, folder: str, size: int) -> dict[str, float]:
    """Seconds of one phase in this process, and its peak memory so far in MB."""
    import handful

    before = peak_mb()
    if phase == "plain":
        began = time.perf_counter()
        plain(Path(folder), size)
    else:
        began = time.perf_counter()
        images = handful.load(folder, labeled=False)
        if phase.startswith("decode"):
            began = time.perf_counter()
            images.at(size)
        elif phase in WHOLE:
            images.at(size)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "peak_mb": round(peak_mb()),
        "of_which_imports_mb": round(before),
    }


def plain(folder: Path, size: int) -> np.ndarray:
    """What a notebook does."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    pictures = []
    for path in files:
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB").resize((size, size))))
    return np.stack(pictures)


def make_photos(folder: Path, n: int, different: int = 40) -> None:
    """`n` JPEG files of 4000 x 3000 pixels in two class folders."""
    rng = np.random.default_rng(0)
    originals = []
    for number in range(min(n, different)):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        photo = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC), np.int16)
        photo = photo + rng.integers(-6, 7, (3000, 4000, 1), dtype=np.int16)  # grain, as cameras
        path = folder / "originals" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        originals.append(path)
    for number in range(n):
        path = folder / "photos" / "ab"[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], path)


def add_photo(folder: Path) -> None:
    """One more file, unlike the others: the first one mirrored."""
    first = min(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    with Image.open(first) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first.with_name("one-more.jpg"))


def run(folder: Path, size: int, phases: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Every phase in its own process, over one cache that is empty at first."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "HANDFUL_CACHE": cache}
        figures = {}
        for phase in phases:
            if phase == "one more":
                add_photo(folder)
            elif phase == "open":  # the first of the cold ones
                environment["HANDFUL_CACHE"] = str(Path(cache) / "second")
            command = [
                sys.executable,
                "-m",
                __spec__.name,
                "--phase",
                phase,
                "--size",
                str(size),
                str(folder),
            ]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            figures[phase] = json.loads(done.stdout)
            print(f"{phase:>14}", figures[phase], file=sys.stderr)
    return figures


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("source", help="a folder in HANDFUL_DATA, or photos")
    parser.add_argument("--size", type=int, help="32, or 224 for photos")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(measure(options.phase, options.source, options.size)))
        return
    with tempfile.TemporaryDirectory() as made:
        if options.source == "photos":
            make_photos(Path(made), options.photos)
            folder, size = Path(made) / "photos", options.size or 224
        else:
            folder, size = Path(made) / options.source, options.size or 32
            shutil.copytree(data_folder() / options.source, folder)
        figures = run(folder, size, tuple(options.only))
        files = sum(1 for path in folder.rglob("*") if path.is_file())
    record.append("ingest", options.source, options.kind, figures, files=files, size=size)


if __name__ == "__main__":
    main()
