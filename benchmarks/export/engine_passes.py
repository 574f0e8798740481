"""How many images ONNX Runtime should compute in a pass: processor time an image, by that number.

    python -m benchmarks run engine_passes                  # all networks, none written
    python -m benchmarks run engine_passes --kind final

One thread; processor time is counted, so that a busy machine changes it little; the median of
turns, in which all numbers take part. `handful.onnx_runtime.images_in_a_pass` rests on it.
"""

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.lib import arguments, record
from benchmarks.lib.made_runs import made_run
from handful.onnx_runtime import IMAGES, OnnxModel, images_in_a_pass

COUNTS = (1, 2, 4, 8, 16, 32, 64)
ROWS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("small", 32, {}),
    ("resnet18", 32, {}),
    ("lite0", 96, {"stages": 3}),
    ("lite0", 160, {"stages": 3}),
    ("lite0", 224, {"stages": 3}),
)


def measure(network: str, size: int, options: dict[str, Any], rounds: int) -> dict[str, Any]:
    run = made_run(network, size=size, frozen=bool(options), **options)
    model = OnnxModel(run.to_onnx(), threads=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (max(COUNTS), 3, size, size), dtype=np.uint8)
    took: dict[int, list[float]] = {count: [] for count in COUNTS}
    for turn in range(rounds + 1):  # the first has costs of its own
        for count in COUNTS:
            start = time.process_time()
            for first in range(0, len(images), count):
                model.session.run(None, {IMAGES: images[first : first + count]})
            if turn:
                took[count].append((time.process_time() - start) / len(images))
    return {
        "ms": {str(n): round(1000 * statistics.median(took[n]), 3) for n in COUNTS},
        "taken": images_in_a_pass(size),
        "rounds": rounds,
    }


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    for network, size, how in ROWS:
        figures = measure(network, size, how, options.rounds)
        name = f"{network} at {size} pixels"
        record.show("engine_passes", name, options.kind, figures)


if __name__ == "__main__":
    main()
