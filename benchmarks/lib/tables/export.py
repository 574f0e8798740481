"""Exported models: whether they answer as their runs do, how fast they are, and the service."""

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


def engine() -> str:
    """Milliseconds an image, of the network alone; bf16 where the processor has it."""
    rows = []
    for line in record.final("engine"):
        found = line["figures"]
        figures = ("onnx_ms", "fp32_ms", "bf16_ms", "ratio_to_fp32", "ratio_to_bf16")
        cells = [f"{found[key]:.2f}" if key in found else "" for key in figures]
        rows.append([line["name"], *cells, line["hardware"]])
    header = [
        "network", "ONNX Runtime, ms", "PyTorch fp32, ms", "PyTorch bf16, ms", "ratio to fp32",
        "ratio to bf16", "on",
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
