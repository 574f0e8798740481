"""How time and memory grow with the number of files: opening a folder, `data`, and `predict`.

    python -m benchmarks run growth --kept /tmp/photos   # a thousand to a hundred thousand files
    python -m benchmarks run growth --kept /tmp/photos --least 6 --most 6 --jobs open "open again"

The files are generated PNGs of 8 by 8 pixels, all different, a thousand in a folder. Each job is a
process of its own; those of one number of files share a cache, which is empty at first:

- `open`: `handful.load` looks into every file;
- `open again`: nothing has changed;
- `predict --shard`: a sixteenth of the images, in a folder that is known;
- `data`: all checks, and the search for images that are almost equal. It decodes every image;
- `data again`: the decoded images are known, too.

Seconds are those of the processor, of one thread, since other work may share the machine. Memory is
the peak of the process. What a process takes that does nothing is measured, too.
"""

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

SHARD = "1/16"
IN_A_FOLDER = 1000

JOBS = ["open", "open again", "predict --shard", "data", "data again"]
Figures = dict[str, float]


def make_files(folder: Path, files: int) -> None:
    """Write the files of these numbers, with pixels that no other number has."""
    for number in range(files):
        place = folder / f"{number // IN_A_FOLDER:04d}"
        if number % IN_A_FOLDER == 0:
            place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:07d}.png", "PNG")


def process(words: list[str], cache: Path) -> Figures:
    """Processor seconds and peak memory in MB of a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HANDFUL_CACHE": str(cache)}
    command = [sys.executable, "-m", "benchmarks.cluster.growth", "--phase", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def phase(words: list[str]) -> None:
    """Do one job in this process, and print what it took."""
    if words[0] in ("open", "nothing"):
        from handful.data.sources import load

        if words[0] == "open":
            load(words[1], labeled=False)
    else:
        from handful import cli

        sys.argv = ["handful", *words]
        cli.main()
    seconds = round(time.process_time(), 2)
    print(json.dumps({"seconds": seconds, "peak_mb": round(peak_mb())}))


def jobs(run: Path, photos: Path, parts: Path) -> dict[str, list[str]]:
    """The command of each job."""
    predict = ["predict", str(run), str(photos), "--shard", SHARD, "--out", str(parts)]
    return {
        "open": ["open", str(photos)],
        "open again": ["open", str(photos)],
        "predict --shard": predict,
        "data": ["data", str(photos)],
        "data again": ["data", str(photos)],
    }


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--least", type=int, default=3, help="power of ten; 3 is a thousand files")
    parser.add_argument("--most", type=int, default=5, help="power of ten; 6 is a million files")
    parser.add_argument("--kept", type=Path, help="folder of the files; those there are used again")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, help="only these")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        kept = given.kept or made  # of the files, and of what is known of them
        fit = ["fit", "digits", "--per-class", "10", "--method", "supervised", "--estimate", "none"]
        fit += ["--set", "steps=100", "--out", str(made / "run")]
        process(fit, made / "cache-fit")
        nothing = process(["nothing"], made / "cache-fit")
        for power in range(given.least, given.most + 1):
            files = 10**power
            photos, cache = kept / f"photos-{files}", kept / f"cache-{files}"
            if not photos.exists():
                make_files(photos, files)
            if "open" in given.jobs and cache.exists():
                shutil.rmtree(cache)
            for name, words in jobs(made / "run", photos, made / f"parts-{files}").items():
                if name in given.jobs:
                    figures = {**process(words, cache), "nothing": nothing}
                    print(files, name, figures, file=sys.stderr, flush=True)
                    shown = f"{arguments.RUN} growth --least {power} --most {power}"
                    record.append("growth", name, given.kind, figures, shown, files=files)


if __name__ == "__main__":
    if "--phase" in sys.argv:
        phase(sys.argv[sys.argv.index("--phase") + 1 :])
    else:
        main()
