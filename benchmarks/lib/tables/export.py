"""Exported models: whether they answer as their runs do, how fast they are, and the service."""

from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown


def parity() -> str:
    """Each network, head and kind of input: 1,000 images in batches of 1, 2, 5 and 17."""
    rows = []
    for line in record.final("parity"):
        found = line["figures"]
        rows.append([
            line["name"], f"{found['images']:,}", f"{found['worst']:.0e}", found["other_class"],
            f"{found['megabytes']:.1f}",
        ])  # fmt: skip
    header = ["network, head, input", "images", "largest difference", "other class", "MB"]
    return markdown(header, rows)


def first_answer() -> str:
    """Seconds from a new process to its first answer."""
    rows = []
    for line in record.final("first_answer"):
        found = line["figures"]
        times = [
            f"{found[f'{what}_processor_seconds']:.2f} ({found[f'{what}_clock_seconds']:.1f})"
            for what in ("libraries", "predict", "serve")
        ]
        rows.append([line["name"], f"{found['megabytes']:.1f}", *times])
    header = ["network", "MB", "import of the three libraries", "predict.py", "handful serve"]
    return markdown(header, rows)


def engine_passes() -> str:
    """Milliseconds of processor time an image, by the number of images in a pass."""
    rows, counts = [], []
    for line in record.final("engine_passes"):
        found = line["figures"]
        counts = list(found["ms"])
        rows.append([line["name"], *(f"{ms:.2f}" for ms in found["ms"].values()), found["taken"]])
    return markdown(["network", *counts, "taken"], rows)


def int8() -> str:
    """Accuracy on features in 32 bits and in int8, means over draws, by source and network."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in record.read("int8"):
        found.setdefault(line["name"], []).append(line["figures"])
    rows, gains = [], []
    for name, draws in found.items():
        cells = []
        for method in ("features", "gaussian_mixture"):
            for count in (4, 10):
                pair = [
                    100 * mean(one[f"{kind} {method} {count}"] for one in draws)
                    for kind in ("fp32", "int8")
                ]
                gains.append(pair[1] - pair[0])
                cells.append(f"{pair[0]:.1f} / {pair[1]:.1f}")
        rows.append([name, len(draws), *cells])
    rows.append(["mean difference", "", f"{mean(gains):+.2f}", "", "", ""])
    header = ["images, network", "draws", "features, 4", "10", "gaussian_mixture, 4", "10"]
    return markdown(header, rows)


def engine() -> str:
    """Milliseconds an image, of the network alone; bf16 where the processor has it."""
    rows = []
    for line in record.final("engine"):
        found = line["figures"]
        if "int8_ms" not in found:
            continue
        figures = ("int8_ms", "onnx_ms", "fp32_ms", "bf16_ms", "ratio_to_fp32", "ratio_to_bf16")
        cells = [f"{found[key]:.2f}" if key in found else "" for key in figures]
        rows.append([line["name"], *cells, line["hardware"]])
    header = [
        "network", "int8, ms", "32 bits, ms", "PyTorch 32 bits, ms", "PyTorch bf16, ms",
        "ratio to 32 bits", "ratio to bf16", "on",
    ]  # fmt: skip
    return markdown(header, rows)


def serve_load() -> str:
    """Requests per second, ours beside the plain script."""
    rows = []
    for line in record.final("serve_load"):
        found = line["figures"]
        if "ratio" not in found:
            continue
        ours, plain = found["ours"], found["plain"]
        rows.append([
            line["name"], f"{ours['per_second']:.1f}", f"{plain['per_second']:.1f}",
            f"{found['ratio']:.2f}", f"{ours['processor_ms']:.1f} / {plain['processor_ms']:.1f}",
            f"{plain['processor_ms'] / ours['processor_ms']:.2f}",
            f"{ours['p50_ms']:.0f} / {ours['p99_ms']:.0f}",
            f"{plain['p50_ms']:.0f} / {plain['p99_ms']:.0f}", ours["errors"],
        ])  # fmt: skip
    header = [
        "load", "requests/s", "plain script", "ratio", "processor ms a request, ours / plain",
        "ratio", "p50 / p99 ms", "plain", "errors",
    ]  # fmt: skip
    return markdown(header, rows)
