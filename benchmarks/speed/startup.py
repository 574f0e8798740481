"""What commands cost before they do anything: processor time, beside `python -c pass`.

    python -m benchmarks run startup

Every command runs `--times` times in turn, as a process of its own; the median of user and system
time counts, so that other work on the machine matters little. A first turn, which does not count,
leaves compiled modules, as pip does. `predict` classifies one photograph with a run on ImageNet
features, and is held against `import torch`: a new photograph, whose features are computed, and one
whose features are known.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import handful
from benchmarks.lib import arguments, record

PLAIN, TORCH, NEW = "python -c pass", "import torch", "predict of one image"


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        commands = made(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(-1, options.times):
            for name, command in commands.items():
                cache = f"cache-{turn}" if name == NEW else "cache"
                found = processor_time(command, Path(folder), cache)
                if turn >= 0:
                    seconds[name].append(found)
    middle = {name: median(each) for name, each in seconds.items()}
    figures = {
        name: {
            "seconds": round(each, 3),
            "times_python": round(each / middle[PLAIN], 1),
            "times_torch": round(each / middle[TORCH], 2),
        }
        for name, each in middle.items()
    }
    for name, row in figures.items():
        print(name, row)
    if not options.dry:
        record.append("startup", "processor time", "final", figures)


def made(folder: Path) -> dict[str, list[str]]:
    """The commands by name; `folder` gets a run and a photograph."""
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (480, 640, 3), np.uint8)).save(folder / "one.jpg")
    images = handful.load("digits")
    handful.fit(images.seen(images.labeled[:40]), "features", out=folder / "run", size=96)
    python, module = sys.executable, [sys.executable, "-m", "handful"]
    return {
        PLAIN: [python, "-c", "pass"],
        TORCH: [python, "-c", "import torch"],
        "handful --help": [*module, "--help"],
        "handful fit --help": [*module, "fit", "--help"],
        "a wrong path": [*module, "fit", "/no/such/folder"],
        "a wrong run": [*module, "predict", "/no/such/folder", "one.jpg"],
        NEW: [*module, "predict", "run", "one.jpg"],
        "predict of a known image": [*module, "predict", "run", "one.jpg"],
    }


def processor_time(command: list[str], folder: Path, cache: str) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HANDFUL_CACHE": str(folder / cache)}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
