"""The same predictions from a folder, from shards, from S3, and from archives and tables.

    python -m benchmarks run sources                     # 3,000 images of MNIST
    python -m benchmarks run sources --images 60000

Images of MNIST's test part (HANDFUL_DATA) are written as PNG files. One run predicts them in each
of these ways, each in a process of its own with an empty cache, so nothing is taken from another
way: a folder; four shards, one of which is killed in the middle and started again, and `merge`; a
bucket, a list and a tar file on a real S3 server on this machine (moto); the bucket while one read
in a hundred fails; a zip file, a WebDataset, and a Parquet file with the pictures in its rows. A
way is right if its Parquet file has the rows of the folder, to the last bit. `again` is the time
when all is known.
"""

import argparse
import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lib import arguments, record
from benchmarks.lib.memory import peak_mb
from benchmarks.lib.paths import ROOT
from handful.cores import use_cores
from handful.data.cache import data_folder

BUCKET = "photos"
S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
SHARDS = 4
FAILING = 0.01  # share of the reads that fail


def make_photos(folder: Path, n: int) -> dict[str, bytes]:
    """Write the first `n` test images of MNIST as PNG files; name → content."""
    from torchvision.datasets import MNIST

    pixels = MNIST(str(data_folder()), train=False).data.numpy()
    made = {}
    for number in range(n):
        file = io.BytesIO()
        picture = np.roll(pixels[number % len(pixels)], number // len(pixels), axis=1)
        Image.fromarray(picture).save(file, "PNG")
        made[f"{number:06d}.png"] = file.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return made


def make_archives(folder: Path, photos: dict[str, bytes]) -> None:
    """photos.zip, photos.tar (a WebDataset with labels beside the pictures) and photos.parquet."""
    import pyarrow
    from pyarrow import parquet

    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for name, content in photos.items():
            archive.writestr(name, content)
    with tarfile.open(folder / "photos.tar", "w") as archive:
        for name, content in photos.items():
            for kind, held in (("png", content), ("cls", b"0")):
                member = tarfile.TarInfo(name.replace("png", kind))
                member.size = len(held)
                archive.addfile(member, io.BytesIO(held))
    rows = [{"bytes": content, "path": name} for name, content in photos.items()]
    parquet.write_table(
        pyarrow.table({"image": rows}), folder / "photos.parquet", row_group_size=500
    )


def fill_bucket(folder: Path, photos: dict[str, bytes], address: str) -> None:
    """The images, photos.tar and a list of the images on the S3 server."""
    import s3fs

    system = s3fs.S3FileSystem(endpoint_url=address, key="test", secret="test")
    system.mkdir(BUCKET)
    system.pipe({f"{BUCKET}/all/{name}": content for name, content in photos.items()})
    system.pipe(f"{BUCKET}/all/list.csv", "\n".join(["uri", *photos]).encode())
    system.pipe(f"{BUCKET}/photos.tar", (folder / "photos.tar").read_bytes())


def predict(words: list[str], cache: Path, more: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of one `handful` in a process of its own."""
    environment = {**os.environ, **S3, **more, "HANDFUL_CACHE": str(cache)}
    command = [sys.executable, "-m", __spec__.name, "--phase", *words]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return round(time.perf_counter() - began, 1), round(told["peak_mb"])


def phase(words: list[str]) -> None:
    """Run a command of handful in this process, and print its peak memory."""
    from handful import cli

    if words[0] == "failing":
        fail_sometimes()
        words = words[1:]
    if words[0] == "cores":
        use_cores(int(words[1]))
        words = words[2:]
    sys.argv = ["handful", *words]
    cli.main()
    print(json.dumps({"peak_mb": peak_mb()}))


def fail_sometimes() -> None:
    """Let one read of an object in a hundred fail."""
    from handful.data.objects.readers import ObjectReader

    read, draw, lock, failed = ObjectReader.read, random.Random(0), threading.Lock(), [0]

    def failing(self: ObjectReader, key: str, size: int) -> bytes:
        with lock:
            fails = draw.random() < FAILING
            failed[0] += fails
        if fails:
            raise OSError("connection reset by peer")
        return read(self, key, size)

    ObjectReader.read = failing  # type: ignore[method-assign]


def kill(words: list[str], cache: Path, seconds: float) -> bool:
    """Start a command, kill it after `seconds`, and return whether it was still at work."""
    environment = {**os.environ, "HANDFUL_CACHE": str(cache)}
    command = [sys.executable, "-m", __spec__.name, "--phase", *words]
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
    return running.wait() == -signal.SIGKILL


def sharded(run: Path, source: Path, folder: Path) -> dict[str, object]:
    """Four shards, each with a cache of its own; the second is killed, and started again."""
    parts, seconds, peak, killed = folder / "parts", [], 0.0, False
    for number in range(1, SHARDS + 1):
        cache = folder / f"cache-{number}"
        words = ["predict", str(run), str(source), "--out", str(parts)]
        words += ["--shard", f"{number}/{SHARDS}"]
        if number == 2:
            killed = kill(words, cache, 0.6 * seconds[0])
        took, memory = predict(words, cache, {})
        seconds.append(took)
        peak = max(peak, memory)
    merged = folder / "shards.parquet"
    took, _ = predict(["merge", str(parts), "--out", str(merged)], folder / "cache-1", {})
    return {"seconds": seconds, "merge_seconds": took, "peak_mb": peak, "killed": killed}


def equal(one: Path, other: Path) -> bool:
    from pyarrow import parquet

    return bool(parquet.read_table(one).equals(parquet.read_table(other)))


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    parser.add_argument("--phase", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        phase(options.phase)
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        photos = make_photos(folder / "photos", options.images)
        make_archives(folder, photos)
        fill_bucket(folder, photos, address)
        fit = ["fit", "mnist", "--per-class", "10", "--method", "features", "--estimate", "none"]
        fit += ["--size", str(options.size), "--out", str(folder / "run")]
        predict(fit, folder / "cache-fit", {})
        ways = {
            "folder": [str(folder / "photos")],
            "zip": [str(folder / "photos.zip")],
            "webdataset": [str(folder / "photos.tar")],
            "parquet": [str(folder / "photos.parquet")],
            "s3": [f"s3://{BUCKET}/all/"],
            "s3 list": [f"s3://{BUCKET}/all/list.csv"],
            "s3 tar": [f"s3://{BUCKET}/photos.tar"],
            "s3, 1 % of reads fail": ["failing", f"s3://{BUCKET}/all/"],
        }
        figures: dict[str, dict[str, object]] = {}
        for name, (*before, source) in ways.items():
            out = folder / f"{name}.parquet"
            words = [*before, "predict", str(folder / "run"), source, "--out", str(out)]
            cache = folder / f"cache-{name}"
            seconds, peak = predict(words, cache, {"AWS_ENDPOINT_URL": address})
            again, _ = predict(words, cache, {"AWS_ENDPOINT_URL": address})
            same = equal(out, folder / "folder.parquet")
            figures[name] = {"equal": same, "seconds": seconds, "again": again, "peak_mb": peak}
            print(name, figures[name], file=sys.stderr)
        shards = sharded(folder / "run", folder / "photos", folder)
        same = equal(folder / "shards.parquet", folder / "folder.parquet")
        figures["shards"] = {"equal": same, **shards}
        print("shards", figures["shards"], file=sys.stderr)
    server.stop()
    record.append("sources", "mnist", options.kind, figures, images=options.images)


if __name__ == "__main__":
    main()
