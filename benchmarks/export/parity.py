"""Do exported models answer as their runs do? Networks, heads and inputs, batches of 1, 2, 5, 17.

    python -m benchmarks run parity                    # all rows, none written
    python -m benchmarks run parity --kind final
    python -m benchmarks run parity lite0 fast         # some networks
    python -m benchmarks run parity --missing --kind final    # rows that have no line yet

Each row is a network with a head and an input (grey 8 x 8 to colour 224 x 224). It is converted
once, and ONNX Runtime answers 1,000 images in batches of 1, 2, 5 and 17, and in one of all; small
and large rows alike. PyTorch in 32 bits, without what was converted, is the reference; for features
in int8 it is what handful itself computes. Weights are random, and so are statistics and heads:
they spread the answers over the classes. Networks with learned weights keep them. Figures: the
largest difference of a probability, images of another class, seconds to convert, and megabytes.

Each network has a row in grey and one in colour, where it takes both, and each head has several
rows. A head sees features alone, so not each head is paired with each network.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.lib import arguments, record
from benchmarks.lib.made_runs import made_run
from handful.exporting.agreement import run_answers
from handful.exporting.check_images import made
from handful.onnx_runtime import OnnxModel

BATCHES = (1, 2, 5, 17)
IMAGES = 1_000
PAIR = {"networks": "lite0+lite2", "stages": 3, "trained": "small"}
INT8 = {"precision": "int8"}
# Network, options (and the precision of features), head, channels, side in pixels, frozen.
ROWS: tuple[tuple[str, dict[str, Any], str, int, int, bool], ...] = (
    ("small", {}, "linear", 1, 8, False),
    ("small", {}, "deep", 3, 32, False),
    ("small", {}, "norm", 3, 96, False),
    ("small", {}, "linear", 3, 128, True),
    ("fast", {}, "linear", 3, 32, False),
    ("fast", {"shifted": True}, "mlp", 3, 32, False),
    ("fast", {}, "mixed", 1, 28, False),
    ("fast", {}, "deep", 3, 32, False),
    ("mlp", {}, "linear", 1, 8, False),
    ("mlp", {}, "norm", 3, 32, False),
    ("cnn", {}, "mlp", 1, 28, False),
    ("cnn", {}, "linear", 3, 32, False),
    ("simple-cnn", {}, "linear", 3, 32, False),
    ("simple-cnn", {}, "deep", 1, 28, False),
    ("deep-cnn", {}, "norm", 1, 28, False),
    ("deep-cnn", {}, "linear", 3, 32, False),
    ("cifar-cnn", {"bias": False, "norm": True}, "linear", 3, 32, False),
    ("cifar-cnn", {}, "mlp", 1, 28, False),
    ("resnet18", {}, "linear", 3, 32, False),
    ("resnet18", {}, "mixed", 1, 28, False),
    ("basic-encoder", {}, "mlp", 1, 28, False),
    ("basic-encoder", {}, "linear", 3, 32, True),
    ("resnet-encoder", {}, "deep", 3, 32, False),
    ("resnet-encoder", {}, "linear", 1, 28, True),
    ("complex-encoder", {}, "linear", 3, 32, False),
    ("complex-encoder", {}, "mlp", 1, 28, True),
    ("small-encoder", {}, "mixed", 3, 64, False),
    ("small-encoder", {}, "linear", 1, 64, True),
    ("split", {}, "linear", 3, 32, False),
    ("split", {"space": "ycbcr"}, "mlp", 3, 48, False),
    ("lite0", {"stages": 1}, "linear", 3, 96, True),
    ("lite0", {"stages": 3}, "linear", 1, 64, True),
    ("lite0", {"stages": 3}, "mixed", 3, 160, True),
    ("lite0", {"stages": 3}, "mlp", 3, 224, True),
    ("lite0", {"stages": 8}, "deep", 3, 96, False),
    ("lite1", {"stages": 2}, "linear", 3, 96, True),
    ("lite1", {"stages": 3}, "mixed", 1, 64, True),
    ("lite2", {"stages": 3}, "norm", 3, 96, True),
    ("lite2", {"stages": 3}, "mlp", 1, 64, True),
    ("lite0+lite2", {"stages": 3}, "linear", 3, 128, True),
    ("lite0+lite2", {"stages": 3}, "linear", 1, 64, True),
    ("lite0+lite2", {"stages": 3}, "mlp", 3, 64, True),
    ("lite0+lite2", {"stages": 3}, "mixed", 3, 96, True),
    ("lite0+lite2", {"stages": 1}, "norm", 3, 64, True),
    ("lite0+lite2", {"stages": 3}, "deep", 1, 64, False),
    ("lite0", {"stages": 3, "precision": "int8"}, "linear", 3, 96, True),
    ("lite0", {"stages": 1, "precision": "int8"}, "mixed", 1, 64, True),
    ("lite0", {"stages": 8, "precision": "int8"}, "mlp", 3, 160, True),
    ("lite1", {"stages": 3, "precision": "int8"}, "norm", 3, 64, True),
    ("lite2", {"stages": 3, "precision": "int8"}, "linear", 3, 224, True),
    ("lite0+lite2", {"stages": 3, "precision": "int8"}, "linear", 3, 128, True),
    ("lite0+lite2", {"stages": 3, "precision": "int8"}, "mixed", 1, 64, True),
    ("ensemble", {**PAIR, "side": 32}, "linear", 3, 96, True),
    ("ensemble", {**PAIR, "side": 8}, "linear", 1, 64, True),
    ("ensemble", {**PAIR, "side": 32, **INT8}, "linear", 3, 96, True),
    ("ensemble", {**PAIR, "trained": "fast", "side": 32, **INT8}, "linear", 3, 128, True),
    ("timm:resnet10t", {"pretrained": False}, "linear", 3, 96, True),
    ("timm:resnet10t", {"pretrained": False}, "mixed", 1, 64, True),
    ("timm:mobilenetv3_small_050", {"pretrained": False}, "mlp", 1, 64, True),
    ("timm:mobilenetv3_small_050", {"pretrained": False}, "linear", 3, 96, False),
    ("timm:vit_tiny_patch16_224", {"pretrained": False}, "linear", 3, 64, True),
    ("timm:vit_tiny_patch16_224", {"pretrained": False}, "norm", 1, 64, True),
)


def name_of(row: tuple[str, dict[str, Any], str, int, int, bool]) -> str:
    network, options, head, channels, size, frozen = row
    shown = "".join(f" {key}={value}" for key, value in options.items() if key != "pretrained")
    colour = "grey" if channels == 1 else "colour"
    return f"{network}{shown}, {head}{', frozen' if frozen else ''}, {colour} {size}"


def measure(row: tuple[str, dict[str, Any], str, int, int, bool], images: int) -> dict[str, Any]:
    network, options, head, channels, size, frozen = row
    run = made_run(network, head=head, channels=channels, size=size, frozen=frozen, **options)
    start = time.perf_counter()
    content = run.to_onnx()
    seconds = time.perf_counter() - start
    pixels = _images(run.predictor, images)
    expected = run_answers(run.predictor, pixels).probabilities
    model, worst, other = OnnxModel(content), 0.0, 0
    for batch in (*BATCHES, images):
        # A batch of all would hold the maps of 1,000 images; a tenth shows the same.
        part = pixels if batch in BATCHES else pixels[: max(100, 3_000_000 // size**2)]
        found = model.answer(part, batch).probabilities
        worst = max(worst, float(np.abs(found - expected[: len(part)]).max()))
        other = max(other, int((found.argmax(1) != expected[: len(part)].argmax(1)).sum()))
    return {
        "images": images,
        "classes_named": int(len(np.unique(expected.argmax(1)))),
        "worst": worst,
        "other_class": other,
        "convert_seconds": round(seconds, 1),
        "megabytes": round(len(content) / 1e6, 2),
    }


def _images(predictor: Any, n: int) -> np.ndarray:
    """Made images: half smooth or with edges, half of them with noise on top."""
    base = made(predictor, n).astype(np.int16)
    rng = np.random.default_rng(2)
    base[::2] += rng.normal(0, 30, base[::2].shape).astype(np.int16)
    return base.clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("networks", nargs="*", help="all by default")
    parser.add_argument("--missing", action="store_true", help="only rows without a final line")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    there = {line["name"] for line in record.final("parity")}
    bad = 0
    for row in ROWS:
        if options.networks and row[0] not in options.networks:
            continue
        if options.missing and name_of(row) in there:
            continue
        figures = measure(row, options.images)
        bad += figures["other_class"] > 0 or figures["worst"] > 1e-3
        record.show("parity", name_of(row), options.kind, figures)
    sys.exit(f"{bad} rows differ" if bad else 0)


if __name__ == "__main__":
    main()
