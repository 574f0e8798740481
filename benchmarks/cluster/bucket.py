"""Predictions of photos in a bucket: by Ray, by shards, and by one process.

    python -m benchmarks run bucket                          # 6,000 images of MNIST
    python -m benchmarks run bucket --images 60000 --few 6000 --kept /tmp/bucket
    python -m benchmarks run bucket --images 60000 --few 6000 --kept /tmp/bucket --ways ray

PNG files of MNIST (HANDFUL_DATA) are in a bucket of a real S3 server on this machine (moto). The
cluster is a real one of this machine, of two workers with one CPU each. Ray, four shards one after
the other, and one process must give equal Parquet files, to the last bit. So must Ray where one GET
in a hundred is answered with an error and a worker is killed at work. Peak memory is that of the
largest worker, with fewer and with more images. Seconds hold the work of the server, and other work
may have shared the machine. With `--kept` the ways may be done one by one: the line is written when
those of `--ways` are there.
"""

import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.cluster.ray import ONE_THREAD, watched
from benchmarks.cluster.sources import BUCKET, S3, SHARDS, make_photos, predict
from benchmarks.lib import arguments, record
from handful.cores import cores

FAILING = 0.01  # share of the GETs that are answered with an error
WORKERS = 2
KILL_AFTER = 12.0  # seconds of work, of all workers together
AT_WORK = 3.0  # seconds of the processor: a worker that had jobs
FEW = "ray, few"
KILLED = "ray, killed and failing"
WAYS = ["one process", FEW, "ray", KILLED, "shards"]


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
    from moto.s3.models import s3_backends
    from moto.server import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class KeepAlive(WSGIRequestHandler):
        """A connection serves many requests, as with S3 itself, where werkzeug would close it.

        A request has no body here.
        """

        protocol_version = "HTTP/1.1"

        def run_wsgi(self) -> None:
            told: list[tuple[str, list[tuple[str, str]]]] = []
            parts = self.server.app(self.make_environ(), lambda *given: told.append(given[:2]))
            body = b"".join(parts)
            status, headers = told[-1]
            self.send_response(int(status.split()[0]))
            for name, value in headers:
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name, _ in headers):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # Of all services S3 alone: finding the service took a third of a request.
    flaky = Flaky(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, flaky, threaded=True, request_handler=KeepAlive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    stored = s3_backends["123456789012"]["aws"]  # moto's account; putting by HTTP takes minutes
    stored.create_bucket(BUCKET, S3["AWS_DEFAULT_REGION"])
    for number, (name, content) in enumerate(photos.items()):
        stored.put_object(BUCKET, f"all/{name}", content)
        if number < few:
            stored.put_object(BUCKET, f"few/{name}", content)
    try:
        yield address, flaky
    finally:
        server.shutdown()


class Predictions:
    """The ways in a folder. Those that are done are not done again."""

    def __init__(
        self, folder: Path, images: int, few: int, size: int, fewer: Sequence[str]
    ) -> None:
        self.folder, self.few, self.fewer = folder, few, {FEW, *fewer}
        self.photos = make_photos(folder / "photos", images)
        self.run = folder / "run"
        if not self.run.exists():
            fit = ["fit", "mnist", "--per-class", "10", "--method", "features"]
            fit += ["--estimate", "none", "--size", str(size), "--out", str(self.run)]
            predict(fit, folder / "cache-fit", ONE_THREAD)

    def done(self) -> dict[str, dict[str, Any]]:
        """Figures of the ways that are done, in the order of WAYS."""
        found = {way: self.folder / f"{way}.json" for way in WAYS}
        return {way: json.loads(at.read_text()) for way, at in found.items() if at.exists()}

    def do(self, ways: list[str]) -> None:
        all_of_them = bool(set(ways) - self.fewer)
        photos = dict(islice(self.photos.items(), None if all_of_them else self.few))
        with bucket(photos, self.few) as (address, flaky):
            self.environment = {**ONE_THREAD, **S3, "AWS_ENDPOINT_URL": address}
            for way in ways:
                flaky.on, flaky.failed = way == KILLED, 0
                told: dict[str, Any] = {"cores": cores(), "load": os.getloadavg()[0]}
                begun = time.perf_counter()
                if way == "shards":
                    told |= self.shards()
                elif way == "one process":
                    told |= self.predicted(way)
                else:
                    told |= self.on_ray(way)
                told |= {"seconds": round(time.perf_counter() - begun, 1)}
                if way == KILLED:
                    told |= {"failed_gets": flaky.failed}
                told["images"] = self.few if way in self.fewer else len(self.photos)
                told["equal"] = self.equal(way, told["images"])
                (self.folder / f"{way}.json").write_text(json.dumps(told))
                print(way, told, file=sys.stderr, flush=True)

    def out(self, way: str) -> Path:
        return self.folder / f"{way}.parquet"

    def equal(self, way: str, images: int) -> bool:
        """Whether the rows are those of one process, for the first so many images."""
        from pyarrow import parquet

        found = parquet.read_table(self.out(way))
        expected = parquet.read_table(self.out("one process")).slice(0, images)
        return len(found) == images and bool(found.equals(expected))

    def source(self, way: str) -> str:
        return f"s3://{BUCKET}/{'few' if way in self.fewer else 'all'}/"

    def predicted(self, way: str, *words: str) -> dict[str, Any]:
        """Peak memory in MB of one `predict`."""
        line = ["predict", str(self.run), self.source(way), "--out", str(self.out(way))]
        if "--on" in words:
            line = ["cores", str(WORKERS), *line]  # other work may have taken one of them
        cache = self.folder / f"cache-{way}"
        return {"peak_mb": predict([*line, *words], cache, self.environment)[1]}

    def on_ray(self, way: str) -> dict[str, Any]:
        cache = self.folder / f"cache-{way}"
        with watched(cache, KILL_AFTER if way == KILLED else 0) as workers:
            told = self.predicted(way, "--on", "ray")
        return {
            "peak_mb": max(workers.peaks.values()),
            "workers": sum(seconds > AT_WORK for seconds in workers.seconds.values()),
            "peak_mb_of_command": told["peak_mb"],
            "killed": bool(workers.killed),
        }

    def shards(self) -> dict[str, Any]:
        parts, peak = self.folder / "parts", 0.0
        for number in range(1, SHARDS + 1):
            line = ["predict", str(self.run), self.source("shards"), "--out", str(parts)]
            line += ["--shard", f"{number}/{SHARDS}"]
            peak = max(peak, predict(line, self.folder / f"cache-{number}", self.environment)[1])
        line = ["merge", str(parts), "--out", str(self.out("shards"))]
        predict(line, self.folder / "cache-1", self.environment)
        return {"peak_mb": peak}


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kept", type=Path, help="folder of what is made; ways there stay")
    parser.add_argument(
        "--fewer", nargs="+", choices=WAYS[2:], default=[], help="take few for these"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.kept or Path(made)
        predictions = Predictions(folder, given.images, given.few, given.size, given.fewer)
        predictions.do([way for way in given.ways if way not in predictions.done()])
        if set(given.ways) <= set(figures := predictions.done()):
            told = {"images": given.images, "few": given.few, "size": given.size}
            record.append("ray", "predict", given.kind, figures, **told)


if __name__ == "__main__":
    main()
