"""Cells of `compare` and predictions `--on ray`, against one process with one thread.

    python -m benchmarks run ray                         # 6,000 images of MNIST
    python -m benchmarks run ray --images 60000 --only predict

The cluster is a real one on this machine: a worker with one CPU for each of two cores. Each way
runs in processes of its own, and its time holds the start of the cluster.

*Cells*: 12 of three methods on features and 4 that train a network, on the digits, no estimates,
by one command. Both ways begin with the features of all images in the cache, and nothing else.
*Predict*: PNG files of MNIST (HANDFUL_DATA) in a bucket of a real S3 server on this machine (moto).
Ray, four shards one after the other, and one process must give equal Parquet files, to the last
bit. So must Ray where one GET in a hundred is answered with an error and a worker is killed at
work. Peak memory is that of the largest worker, with fewer and with more images.
"""

import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster.sources import BUCKET, S3, SHARDS, equal, make_photos, predict
from benchmarks.lib import arguments, record

LOOK = 0.5  # seconds between two looks at the workers
# Seconds of work, of all workers together, after which one is killed.
CELL_BEGUN, PART_BEGUN = 25.0, 12.0
FAILING = 0.01  # share of the GETs that are answered with an error
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
METHODS = "features,self_training,propagation,supervised"
COMPARE = ["--per-class", "10", "--methods", METHODS, "--draws", "4", "--estimate", "none"]
# Which format is faster is measured by each cache, and on a busy machine the answers differ.
COMPARE += ["--set", "supervised.steps=2000", "--precision", "fp32"]


class Workers(threading.Thread):
    """Watches the workers of a cluster, by a text in their environment."""

    def __init__(self, cache: Path, kill_after: float = 0) -> None:
        """`kill_after` kills one worker when workers were at work for so many seconds; 0: none."""
        super().__init__(daemon=True)
        self.mark, self.kill_after = f"HANDFUL_CACHE={cache}".encode(), kill_after / LOOK
        self.peaks: dict[int, int] = {}  # process → MB
        self.seconds: dict[int, float] = {}  # process → of the processor
        self.killed, self.ended = 0, threading.Event()

    def run(self) -> None:
        looks = 0
        while not self.ended.wait(LOOK):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    name = (folder / "cmdline").read_bytes()
                    if not name.startswith(b"ray::"):
                        continue
                    if self.mark not in (folder / "environ").read_bytes().split(b"\0"):
                        continue
                    lines = (folder / "status").read_text().splitlines()
                    times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                except OSError:  # it has ended
                    continue
                peak = next((line.split()[1] for line in lines if line.startswith("VmHWM")), "0")
                self.peaks[int(folder.name)] = int(peak) // 1024
                ticks = sum(map(int, times))
                self.seconds[int(folder.name)] = ticks / os.sysconf("SC_CLK_TCK")
                looks += name.startswith(b"ray::_work")
                if self.kill_after and not self.killed and looks >= self.kill_after:
                    if name.startswith(b"ray::_work"):
                        os.kill(int(folder.name), signal.SIGKILL)
                        self.killed = int(folder.name)


@contextmanager
def watched(cache: Path, kill_after: float = 0) -> Iterator[Workers]:
    workers = Workers(cache, kill_after)
    workers.start()
    try:
        yield workers
    finally:
        workers.ended.set()
        workers.join()


def figures_of(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of a comparison, without their times."""
    return [{key: value for key, value in cell.items() if key != "seconds"} for cell in cells]


def cells(folder: Path) -> dict[str, Any]:
    """Seconds of each way, and whether its figures are those of one thread."""
    known = folder / "known"
    words = ["embed", "digits", "--out", str(folder / "digits.npz")]
    predict(words, known, ONE_THREAD)
    ways: dict[str, dict[str, Any]] = {}
    expected: list[dict[str, Any]] = []
    for way, kill_after in (("one thread", 0), ("ray", 0), ("ray, killed", CELL_BEGUN)):
        cache, out, on = folder / f"cache-{way}", folder / way, way != "one thread"
        shutil.copytree(known, cache)
        words = ["compare", "digits", *COMPARE, "--out", str(out), *(["--on", "ray"] if on else [])]
        with watched(cache, kill_after) as workers:
            before = os.times()
            seconds, _ = predict(words, cache, ONE_THREAD)
            after = os.times()
        own = after.children_user + after.children_system
        own -= before.children_user + before.children_system
        made = json.loads((out / "comparison.json").read_text())["cells"]
        expected = expected or figures_of(made)
        ways[way] = {
            "cells": len(made),
            "files": len(list(out.glob("*-[0-9]*.json"))),
            "equal": figures_of(made) == expected,
            "seconds": seconds,
            "seconds_of_cells": [cell["seconds"] for cell in made],
            "cpu_seconds": round(own, 1),  # with Ray, of the command without the workers
            "cpu_seconds_of_workers": [round(one, 1) for one in workers.seconds.values()],
            "killed": bool(workers.killed),
        }
        print(way, ways[way], file=sys.stderr)
    times = round(ways["one thread"]["seconds"] / ways["ray"]["seconds"], 2)
    return {"compare": COMPARE, "ways": ways, "times_as_fast": times, "load": os.getloadavg()[0]}


class Flaky:
    """A server that answers one GET of an image in a hundred with an error, while `on`."""

    def __init__(self, application: Any) -> None:
        self.application, self.draw, self.on, self.failed = application, random.Random(0), False, 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        image = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".png")
        if self.on and image and self.draw.random() < FAILING:
            self.failed += 1
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self.application(environ, start_response)


@contextmanager
def bucket(photos: dict[str, bytes], few: int) -> Iterator[tuple[str, Flaky]]:
    """An S3 server with all photos below all/, and the first `few` below few/."""
    import s3fs
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    flaky = Flaky(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, flaky, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    system = s3fs.S3FileSystem(endpoint_url=address, key="test", secret="test")
    system.mkdir(BUCKET)
    system.pipe({f"{BUCKET}/all/{name}": content for name, content in photos.items()})
    some = list(photos.items())[:few]
    system.pipe({f"{BUCKET}/few/{name}": content for name, content in some})
    try:
        yield address, flaky
    finally:
        server.shutdown()


def predictions(folder: Path, images: int, few: int, size: int) -> dict[str, Any]:
    photos = make_photos(folder / "photos", images)
    run = folder / "run"
    fit = ["fit", "mnist", "--per-class", "10", "--method", "features", "--estimate", "none"]
    predict([*fit, "--size", str(size), "--out", str(run)], folder / "cache-fit", ONE_THREAD)
    found: dict[str, Any] = {}
    with bucket(photos, few) as (address, flaky):
        more = {**ONE_THREAD, **S3, "AWS_ENDPOINT_URL": address}

        def way(name: str, source: str, *words: str) -> dict[str, Any]:
            out = folder / f"{name}.parquet"
            line = ["predict", str(run), f"s3://{BUCKET}/{source}/", "--out", str(out), *words]
            seconds, peak = predict(line, folder / f"cache-{name}", more)
            found[name] = {"seconds": seconds, "peak_mb": peak}
            if source == "all":
                found[name]["equal"] = equal(out, folder / "one process.parquet")
            return found[name]

        def on_ray(name: str, source: str, kill_after: float = 0) -> None:
            with watched(folder / f"cache-{name}", kill_after) as workers:
                told = way(name, source, "--on", "ray")
            told["peak_mb_of_command"] = told.pop("peak_mb")
            told["peak_mb"] = max(workers.peaks.values())
            told["killed"] = bool(workers.killed)
            print(name, told, file=sys.stderr)

        print("one process", way("one process", "all"), file=sys.stderr)
        on_ray("ray, few", "few")
        on_ray("ray", "all")
        flaky.on = True
        on_ray("ray, killed and failing", "all", kill_after=PART_BEGUN)
        flaky.on, found["ray, killed and failing"]["failed_gets"] = False, flaky.failed
        began, peak, parts = time.perf_counter(), 0.0, folder / "parts"
        for number in range(1, SHARDS + 1):
            line = ["predict", str(run), f"s3://{BUCKET}/all/", "--out", str(parts)]
            cache = folder / f"cache-{number}"
            peak = max(peak, predict([*line, "--shard", f"{number}/{SHARDS}"], cache, more)[1])
        merged = folder / "shards.parquet"
        predict(["merge", str(parts), "--out", str(merged)], folder / "cache-1", more)
        found["shards"] = {
            "seconds": round(time.perf_counter() - began, 1),
            "peak_mb": peak,
            "equal": equal(merged, folder / "one process.parquet"),
        }
        print("shards", found["shards"], file=sys.stderr)
    found["load"] = os.getloadavg()[0]
    return found


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--only", choices=("cells", "predict"))
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if given.only != "predict":
            record.append("ray", "cells", given.kind, cells(folder))
        if given.only != "cells":
            found = predictions(folder, given.images, given.few, given.size)
            told = {"images": given.images, "few": given.few}
            record.append("ray", "predict", given.kind, found, **told)


if __name__ == "__main__":
    main()
