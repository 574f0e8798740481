"""Seconds from a new process to its first answer: `predict.py` and `handful serve` of an export.

    python -m benchmarks run first_answer                  # all networks, none written
    python -m benchmarks run first_answer --kind final

Each process answers one JPEG of 640 x 480. Processor time is counted (all threads), and the clock
beside it, which a busy machine makes longer; medians of `--rounds` new processes. What Python takes
to import the three libraries that predict.py needs is measured, too.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.export.serve_load import PORTS, jpeg, loaded, processor_seconds
from benchmarks.lib import arguments, record
from benchmarks.lib.made_runs import made_run
from handful.exporting.job import CODE, MODEL

ROWS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("small", 32, {}),
    ("resnet18", 32, {}),
    ("lite0", 160, {"stages": 3}),
    ("lite0", 160, {"stages": 3, "precision": "int8"}),
    ("lite0+lite2", 160, {"stages": 3}),
    ("lite0+lite2", 160, {"stages": 3, "precision": "int8"}),
)
LIBRARIES = "import numpy, onnxruntime; from PIL import Image"


def of_a_command(*words: str, folder: Path) -> tuple[float, float]:
    """Seconds of processor time and by the clock, of a process that ends by itself."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True)
    clock, after = time.perf_counter() - start, os.times()
    return sum(after[2:4]) - sum(before[2:4]), clock


def of_the_service(folder: Path, content: bytes) -> tuple[float, float]:
    """The same of `handful serve`, up to its first answer."""
    with socket.create_server(("127.0.0.1", PORTS["ours"])):
        pass  # raises OSError where another service would answer
    start = time.perf_counter()
    command = ["-m", "handful", "serve", str(folder), "--port", str(PORTS["ours"])]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            took, errors = loaded("ours", 1, 0.001, content)
            if took and not errors:
                return processor_seconds(process), time.perf_counter() - start
        raise RuntimeError("handful serve does not answer")
    finally:
        process.kill()
        process.wait()


def measure(network: str, size: int, options: dict[str, Any], rounds: int) -> dict[str, Any]:
    content = jpeg()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = made_run(network, size=size, frozen=bool(options), **options)
        run.to_onnx(folder / MODEL)
        for name in CODE:
            shutil.copy(str(files("handful.exporting").joinpath("folder", name)), folder / name)
        (folder / "a.jpg").write_bytes(content)
        took: dict[str, list[tuple[float, float]]] = {"libraries": [], "predict": [], "serve": []}
        for _ in range(rounds):
            took["libraries"].append(of_a_command("-c", LIBRARIES, folder=folder))
            took["predict"].append(of_a_command(CODE[0], "a.jpg", folder=folder))
            took["serve"].append(of_the_service(folder, content))
        megabytes = (folder / MODEL).stat().st_size / 1e6
    figures: dict[str, Any] = {"rounds": rounds, "megabytes": round(megabytes, 1)}
    for what, pairs in took.items():
        for kind, times in zip(("processor", "clock"), zip(*pairs, strict=True), strict=True):
            figures[f"{what}_{kind}_seconds"] = round(statistics.median(times), 2)
    return figures


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("networks", nargs="*", help="all by default")
    parser.add_argument("--precision", choices=("int8", "fp32"), help="both by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    for network, size, how in ROWS:
        if options.networks and network not in options.networks:
            continue
        if options.precision not in (None, how.get("precision", "fp32")):
            continue
        figures = measure(network, size, how, options.rounds)
        suffix = ", int8" if "precision" in how else ""
        name = f"{network} at {size} pixels{suffix}"
        record.show("first_answer", name, options.kind, figures)


if __name__ == "__main__":
    main()
