"""Requests per second of `handful serve`, beside a plain FastAPI script with PyTorch.

    python -m benchmarks run serve_load --seconds 60 --kind final
    python -m benchmarks run serve_load --seconds 60 --clients 16 --no-strikes --kind final
    python -m benchmarks run serve_load --clients --kind final    # malformed bodies and a kill
    python -m benchmarks run serve_load --seconds 6 --rounds 2 --precision fp32

Both serve one run (EfficientNet-Lite0, three stages, 160 pixels, fitted to made images) and get the
same JPEG over loopback (640 x 480, or as `--side` says), by 1 and by 16 clients that each wait for
their answer. They take turns within one run. Ours is `handful serve run/`, with features in the
precision that handful takes by itself, or in that of `--precision`; the plain side is what a
tutorial shows (below, PLAIN), in 32 bits, in a thread pool and without gradients. `--seconds` is
per side and number of clients, over all `--rounds`. Lines of before int8 are of an exported folder.

Then ours alone: 1,000 malformed bodies (none may get an answer other than 4xx, and memory must not
grow), and 16 clients while it is killed and started again.
"""

import asyncio
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import handful
from benchmarks.lib import arguments, record
from handful.data.imageset import ImageSet
from handful.data.store import array_store

SIZE, CLIENTS = 160, (1, 16)
LOAD = 30  # seconds of clients around a kill; a run is converted before it is served again
PORTS = {"ours": 8411, "plain": 8412}
PLAIN = """
import io, sys, torch, uvicorn
from pathlib import Path
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms
from handful.pipeline.model_file import load_predictor

predictor = load_predictor(Path(sys.argv[1]))
model = predictor.model.eval()
prepare = transforms.Compose([
    transforms.Resize(predictor.size, interpolation=transforms.InterpolationMode.BICUBIC),
    transforms.CenterCrop(predictor.size), transforms.ToTensor()])
app = FastAPI()

@app.post("/predict")
def predict(file: UploadFile):
    image = Image.open(io.BytesIO(file.file.read())).convert("RGB")
    with torch.no_grad():
        shares = model(prepare(image)[None]).softmax(dim=1)[0]
    best = int(shares.argmax())
    return {"label": predictor.classes[best], "confidence": float(shares[best])}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def fitted(folder: Path, precision: str) -> str:
    """A run in a folder, its images of four tints; returns the precision of its features."""
    labels = np.arange(40) % 4
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, SIZE, SIZE), dtype=np.uint8)
    pixels[:, 0] //= (1 + labels[:, None, None]).astype(np.uint8)
    store = array_store(pixels, [f"{number}.png" for number in range(40)])
    images = ImageSet(store, np.arange(40), labels, ("a", "b", "c", "d"), source="made")
    run = handful.fit(
        images, "features", backbone="lite0", size=SIZE, precision=precision, out=folder
    )
    return run.predictor.precision


def jpeg(side: int = 640) -> bytes:
    """A made photograph of 4 to 3, its longer side in pixels."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    with io.BytesIO() as file:
        coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(
            file, "JPEG", quality=90
        )
        return file.getvalue()


def request(side: str, content: bytes) -> bytes:
    """A whole HTTP request; the plain side takes a form, as FastAPI's tutorial has it."""
    kind = "application/octet-stream"
    if side == "plain":
        kind = "multipart/form-data; boundary=xx"
        head = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        content = head + content + b"\r\n--xx--\r\n"
    lines = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{PORTS[side]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return lines.encode() + content


async def answered(reader: asyncio.StreamReader) -> int:
    """Read one answer and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    lengths = [int(line[15:]) for line in lines if line.startswith("content-length:")]
    await reader.readexactly(lengths[0])
    return int(lines[0].split()[1])


async def client(side: str, content: bytes, until: float, took: list[float]) -> int:
    """Ask until a time; append the seconds of each request; return the number of errors."""
    errors, whole = 0, request(side, content)
    reader = writer = None
    while (start := time.perf_counter()) < until:
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", PORTS[side])
            writer.write(whole)
            assert reader is not None
            errors += await answered(reader) != 200
            took.append(time.perf_counter() - start)
        except (OSError, asyncio.IncompleteReadError):
            errors += 1
            writer = None
            await asyncio.sleep(0.05)
    if writer is not None:
        writer.close()
    return errors


def loaded(side: str, clients: int, seconds: float, content: bytes) -> tuple[list[float], int]:
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def every() -> list[int]:
        return await asyncio.gather(*(client(side, content, until, took) for _ in range(clients)))

    return took, sum(asyncio.run(every()))


def started(side: str, folder: Path) -> subprocess.Popen[bytes]:
    """The server of a side, once it answers."""
    if side == "ours":
        command = ["-m", "handful", "serve", str(folder), "--port", str(PORTS[side])]
    else:
        command = ["-c", PLAIN, str(folder / "model.safetensors"), str(PORTS[side])]
    log = open(folder / f"{side}.log", "ab")
    process = subprocess.Popen([sys.executable, *command], stderr=log, stdout=log)
    for _ in range(600):
        took, errors = loaded(side, 1, 0.01, jpeg())
        if took and not errors:
            return process
        if process.poll() is not None:
            raise RuntimeError((folder / f"{side}.log").read_text())
        time.sleep(0.1)
    raise RuntimeError(f"{side} does not answer")


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """What a server has computed so far, all its threads together."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures_of(took: list[float], errors: int, seconds: float, computed: float) -> dict[str, Any]:
    ordered = sorted(took)
    return {
        "per_second": round(len(took) / seconds, 1),
        "processor_ms": round(1000 * computed / len(took), 2),
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 1),
        "errors": errors,
    }


def malformed(n: int) -> list[bytes]:
    """Bodies of which none is a picture: cut, shuffled, empty, foreign, lying about their size."""
    draw, whole = random.Random(0), jpeg()
    with io.BytesIO() as file:
        Image.open(io.BytesIO(whole)).save(file, "PNG")
        png = file.getvalue()
    kinds = (
        lambda: whole[: draw.randrange(1, len(whole) // 2)],
        lambda: png[: draw.randrange(1, len(png) // 2)],
        lambda: draw.randbytes(draw.randrange(1, 5_000)),
        lambda: b"\xff\xd8\xff" + draw.randbytes(2_000),
        lambda: b"\x89PNG\r\n\x1a\n" + draw.randbytes(2_000),
        lambda: b"GIF89a" + draw.randbytes(500),
        lambda: b"II*\0" + draw.randbytes(500),
        lambda: b"RIFF" + draw.randbytes(4) + b"WEBPVP8 " + draw.randbytes(300),
        lambda: b"P6 %d %d 255\n" % (draw.randrange(10**5, 10**9), draw.randrange(10**5, 10**9)),
        lambda: b"<html>" * draw.randrange(1, 100),
    )
    return [kinds[number % len(kinds)]() for number in range(n)]


def memory(process: subprocess.Popen[bytes]) -> float:
    """Megabytes that a process holds in memory."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


async def statuses(bodies: list[bytes]) -> list[int]:
    found = []
    for body in bodies:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORTS["ours"])
        writer.write(request("ours", body))
        found.append(await answered(reader))
        writer.close()
    return found


def strikes(folder: Path, process: subprocess.Popen[bytes], content: bytes) -> dict[str, Any]:
    """Malformed bodies, then a kill and a new start under load."""
    asyncio.run(statuses(malformed(200)))
    before = memory(process)
    found = asyncio.run(statuses(malformed(1_000)))
    grown = memory(process) - before
    log = (folder / "ours.log").read_text()

    async def through_a_kill() -> tuple[float, int, list[float], subprocess.Popen[bytes]]:
        took: list[float] = []
        load = [
            asyncio.create_task(client("ours", content, time.perf_counter() + LOAD, took))
            for _ in range(16)
        ]
        await asyncio.sleep(3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        start, had = time.perf_counter(), len(took)
        again = await asyncio.to_thread(started, "ours", folder)
        back = time.perf_counter() - start
        await asyncio.gather(*load)
        return back, len(took) - had, took, again

    back, after, _, again = asyncio.run(through_a_kill())
    again.send_signal(signal.SIGTERM)
    return {
        "malformed": len(found),
        "not_4xx": sum(not 400 <= status < 500 for status in found),
        "tracebacks": log.count("Traceback"),
        "memory_mb": round(before),
        "memory_grown_mb": round(grown, 1),
        "back_after_kill_seconds": round(back, 1),
        "answers_after_kill": after,
        "stopped_with": again.wait(timeout=30),
    }


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--side", type=int, default=640, help="longer side of the JPEG in pixels")
    parser.add_argument(
        "--clients", nargs="*", type=int, default=CLIENTS, help="how many; 1 and 16"
    )
    parser.add_argument("--precision", choices=("auto", "int8", "fp32"), default="auto")
    parser.add_argument("--no-strikes", action="store_true", help="only requests per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    content = jpeg(options.side)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        precision = fitted(folder, options.precision)
        suffix = "" if precision == "fp32" else f", {precision}"
        servers = {side: started(side, folder) for side in PORTS}
        print("both answer", flush=True)
        try:
            for clients in options.clients:
                took: dict[str, list[float]] = {side: [] for side in PORTS}
                errors, computed = dict.fromkeys(PORTS, 0), dict.fromkeys(PORTS, 0.0)
                for _ in range(options.rounds):
                    for side in PORTS:
                        before = processor_seconds(servers[side])
                        some, bad = loaded(side, clients, options.seconds / options.rounds, content)
                        computed[side] += processor_seconds(servers[side]) - before
                        took[side] += some
                        errors[side] += bad
                both = {
                    s: figures_of(took[s], errors[s], options.seconds, computed[s]) for s in PORTS
                }
                ratio = both["ours"]["per_second"] / both["plain"]["per_second"]
                figures = {**both, "ratio": round(ratio, 2), "seconds": options.seconds}
                many = "client" if clients == 1 else "clients"
                name = f"{clients} {many}, JPEG of {options.side} pixels{suffix}"
                report(options.kind, name, figures)
            if options.no_strikes:
                return
            servers["plain"].terminate()
            report(options.kind, f"strikes{suffix}", strikes(folder, servers["ours"], content))
        finally:
            for process in servers.values():
                if process.poll() is None:
                    process.kill()


def report(kind: str | None, name: str, figures: dict[str, Any]) -> None:
    if kind:
        record.append("serve_load", name, kind, {**figures, "cores": len(os.sched_getaffinity(0))})
    print(name, figures, flush=True)


if __name__ == "__main__":
    main()
