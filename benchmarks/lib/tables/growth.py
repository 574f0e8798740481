"""How cost grows with the number of files: what was measured, and what follows on paper."""

import math
from typing import Any

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown
from handful.evaluation.active_learning import POOL as TO_CHOOSE_FROM
from handful.methods import METHODS
from handful.pipeline.auto.select import LAST_POOL as OF_AUTO

WIDTH = 1792 + 1840  # features of an image by lite0 and lite2 side by side
CLASSES = 10
HALF, SINGLE = 2, 4  # bytes of float16 and float32
SHOWN = {"open": "open a new folder", "open again": "open it again",
         "predict --shard": "`predict --shard 1/16`", "data": "`data`, in a known folder",
         "data again": "`data` again"}  # fmt: skip


def _measured() -> dict[str, dict[int, dict[str, Any]]]:
    """Job → files → the figures of the last line."""
    found: dict[str, dict[int, dict[str, Any]]] = {job: {} for job in SHOWN}
    for line in record.read("growth"):
        if line["name"] in found:
            found[line["name"]][line["files"]] = line["figures"]
    return found


def _seconds(figures: dict[str, Any]) -> float:
    return max(float(figures["seconds"] - figures["nothing"]["seconds"]), 0.01)


def _bytes(figures: dict[str, Any], files: int) -> float:
    return float(figures["peak_mb"] - figures["nothing"]["peak_mb"]) * 2**20 / files


def growth() -> str:
    """Processor seconds of each job, their growth, and memory."""
    measured = _measured()
    sizes = sorted({files for by_files in measured.values() for files in by_files})
    rows = []
    for job, by_files in measured.items():
        cells = [f"{_seconds(by_files[n]):.1f} s" if n in by_files else "–" for n in sizes]
        few, most = 10_000, max(by_files, default=0)
        slope = memory = "–"
        if few in by_files and most > few:
            ratio = _seconds(by_files[most]) / _seconds(by_files[few])
            slope = f"{math.log(ratio) / math.log(most / few):.2f}"
        if most > few:
            memory = f"{_bytes(by_files[most], most):,.0f} bytes"
        rows.append([SHOWN[job], *cells, slope, memory])
    header = ["", *(f"{n:,} files" for n in sizes), "exponent", "memory an image"]
    return markdown(header, rows)


def growth_on_paper() -> str:
    """Memory of what a fit holds, by number of images."""
    limits = {name: int(getattr(METHODS[name](), "limit", 0))
              for name in ("self_training", "propagation")}  # fmt: skip
    of_file = _bytes(*_largest("open again"))
    neighbors = METHODS["propagation"]().neighbors  # type: ignore[attr-defined]
    parts = [
        ("the opened set", lambda n: n * of_file),
        ("features in the cache, on disk", lambda n: n * WIDTH * HALF),
        (f"features that `auto` holds ({OF_AUTO:,})", lambda n: min(n, OF_AUTO) * WIDTH * HALF),
        *(
            (f"… that `{name}` holds ({most:,})", lambda n, most=most: min(n, most) * WIDTH * HALF)
            for name, most in limits.items()
        ),
        (f"neighbours of `propagation` ({neighbors} each)",
         lambda n: min(n, limits["propagation"]) * neighbors * (SINGLE + 2 * SINGLE)),
        (f"images that `label-next.csv` chooses from ({TO_CHOOSE_FROM:,})",
         lambda n: min(n, TO_CHOOSE_FROM) * WIDTH * HALF),
        (f"predictions of {CLASSES} classes", lambda n: n * CLASSES * SINGLE),
    ]  # fmt: skip
    sizes = [10**power for power in range(3, 8)]
    rows = [[what, *(_amount(of(n)) for n in sizes)] for what, of in parts]
    return markdown(["images", *(f"{n:,}" for n in sizes)], rows)


def _largest(job: str) -> tuple[dict[str, Any], int]:
    """The figures of a job on the most files, and their number."""
    by_files = _measured()[job]
    most = max(by_files)
    return by_files[most], most


def _amount(bytes_: float) -> str:
    power = min(max(int(math.log10(max(bytes_, 1)) // 3), 1), 3)
    amount, unit = bytes_ / 1000**power, ("KB", "MB", "GB")[power - 1]
    return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
