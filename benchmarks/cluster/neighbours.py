"""The search for near-duplicates: ours, by comparing all with all in 32 bits, and by faiss.

    python -m benchmarks run neighbours                       # 100,000 pictures
    python -m benchmarks run neighbours --images 30000 --ways ours

Pictures of 32 by 32 pixels of CIFAR-10 (JPEG) and Fashion-MNIST (HANDFUL_DATA), and copies of some,
moved by a pixel and with noise. Each way looks for the four nearest of each picture in the lowest
frequencies, in a process of its own with one thread. What the exact search finds is right:
`copies` is the share of the copies it pairs with their original that a way pairs, too, and `right`
the share of all of its neighbours. Seconds are of the processor, memory is the peak beyond that of
the process before the search (Linux only). faiss (`pip install faiss-cpu`) is no dependency: its
ways are left out where it is missing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lib import arguments, record
from benchmarks.lib.paths import ROOT
from handful.data import near_duplicates as near
from handful.progress import quiet

COPIES = 0.02  # of the pictures
CELLS = 16  # that faiss searches, of the square root of so many times the pictures
OURS, THEIRS = ["exact", "ours"], ["faiss exact", "faiss cells", "faiss hnsw"]


def pictures(images: int) -> torch.Tensor:
    """(n, 1, 32, 32) uint8, the copies last."""
    from handful.data.cache import data_folder
    from handful.data.sources import load

    copies = int(images * COPIES)
    parts = []
    for source in (str(data_folder() / "cifar10-jpeg"), "fashion-mnist"):
        opened = load(source)
        for part in (opened, opened.test):
            parts.append(part.at(near.SIZE, "stretch", channels=1))
    every = torch.cat(parts)
    if images - copies > len(every):
        sys.exit(f"there are {len(every):,} pictures, so --images is at most {len(every):,}")
    own = torch.Generator().manual_seed(0)
    some = every[torch.randperm(len(every), generator=own)[: images - copies]]
    moved = some[:copies].roll(1, dims=3).float()
    noise = torch.randn(moved.shape, generator=own) * 4
    return torch.cat([some, (moved + noise).round().clamp(0, 255).byte()])


def search(way: str, directions: torch.Tensor) -> torch.Tensor:
    """Positions (n, 4) of the nearest others."""
    count = near.PARTNERS
    if way == "ours":
        compared = near._cells(directions) if len(directions) > near.COMPARED else None
        return near._nearest(directions, count, quiet, compared)
    if way == "exact":
        return near._nearest_of_all(directions, torch.arange(len(directions)), count)
    import faiss

    faiss.omp_set_num_threads(1)
    x, width = directions.numpy(), directions.shape[1]
    cells = int((CELLS * len(x)) ** 0.5)
    index = faiss.IndexFlatIP(width)
    if way == "faiss cells":
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = CELLS
        index.train(x)
    elif way == "faiss hnsw":
        index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 64
    index.add(x)
    found = index.search(x, count + 1)[1]
    own = np.arange(len(x))[:, None]
    order = np.argsort(found == own, axis=1, kind="stable")  # the picture itself goes last
    return torch.from_numpy(np.take_along_axis(found, order, 1)[:, :count].copy())


def phase(way: str, folder: Path) -> None:
    """Search in this process, and print what it took."""
    torch.set_num_threads(1)
    if way in THEIRS:
        import faiss  # noqa: F401 (its memory is no part of the search)
    directions = torch.from_numpy(np.load(folder / "directions.npy"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the memory of now
    before, begun = peak_mb(), time.process_time()
    found = search(way, directions)
    seconds, memory = time.process_time() - begun, peak_mb() - before
    np.save(folder / f"{way}.npy", found.numpy().astype(np.int32))
    print(json.dumps({"cpu_seconds": round(seconds, 1), "memory_mb": round(memory)}))


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--ways", nargs="+", choices=OURS + THEIRS, default=OURS + THEIRS)
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    given = parser.parse_args()
    there = find_spec("faiss") is not None
    ways = ["exact", *(way for way in given.ways if way in OURS[1:] or (way in THEIRS and there))]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        directions, usable = near._frequencies(pictures(given.images), lambda: None)
        copies = int(given.images * COPIES)
        places = np.full(given.images, -1)
        places[usable] = np.arange(len(usable))
        one, two = places[-copies:], places[:copies]  # a copy and its original
        one, two = one[(one >= 0) & (two >= 0)], two[(one >= 0) & (two >= 0)]
        np.save(folder / "directions.npy", directions.numpy())
        del directions
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.cluster.neighbours", "--phase", way, made]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            figures[way] = json.loads(done.stdout.splitlines()[-1])
            found, exact = np.load(folder / f"{way}.npy"), np.load(folder / "exact.npy")
            paired = (exact[one] == two[:, None]).any(1)
            also = (found[one] == two[:, None]).any(1)[paired].mean()
            right = (found[:, :, None] == exact[:, None, :]).any(2).mean()
            figures[way] |= {"copies": round(float(also), 4), "right": round(float(right), 4)}
            print(way, figures[way], file=sys.stderr, flush=True)
    told = {"images": given.images}
    if there:
        import faiss

        told["faiss"] = faiss.__version__
    record.append("neighbours", "near-duplicates", given.kind, figures, **told)


if __name__ == "__main__":
    if "--phase" in sys.argv:
        at = sys.argv.index("--phase")
        phase(sys.argv[at + 1], Path(sys.argv[at + 2]))
    else:
        main()
