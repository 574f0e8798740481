"""Does a change of structure leave behaviour as it is? Hashes of what a fixed set of commands does.

    python -m benchmarks run frozen_behaviour write before.json     # on the commit before
    python -m benchmarks run frozen_behaviour check before.json     # on the commit after
    python -m benchmarks run frozen_behaviour compare before.json after.json   # both are written

Every command of the command line runs on small data in a process of its own: one thread, fp32, and
a clock that moves by a fixed step each time it is read, so that budgets buy the same steps. What
each leaves (weights, records, CSV files, reports) and what it prints is hashed. Times, versions and
paths are left out. The hashes hold on one machine only: floating point differs between processors.
This file needs no other: to look at an older commit, copy it there and run it as it is.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

TICK = 0.01  # seconds that the clock moves at each look
SHORT = "steps=12"
TRAINED = (
    "supervised", "uda", "fixmatch", "softmatch", "mean_teacher", "pseudo_label",
    "deep_propagation",
)  # fmt: skip
FITTED = ("features", "self_training", "propagation", "mlp_head")
LABEL_FREE = ("simclr", "vicreg", "cmc", "autoencoder")
VOLATILE = {"seconds", "versions", "command", "device", "created", "handful"}
SENTENCES = {"how", "caveats", "remark", "verdict"}  # wording is compared by the pages and screens
TIMES = re.compile(r"\d[\d.,]* ?(?:s|min|h|seconds|minutes|hours)\b|\d+:\d\d(?::\d\d)?")

START = """
import itertools, sys, time
ticks = itertools.count()
last = 0.0
def clock():
    global last
    frame, callers = sys._getframe(1), []
    while frame and len(callers) < 4:
        callers.append(frame.f_code.co_name)
        frame = frame.f_back
    # A Trainer that is made to time steps reads the clock once more than the code before it did.
    if callers != ["start_clock", "__init__", "__init__", "step_seconds"]:
        last = next(ticks) * {tick}
    return last
time.perf_counter = clock
import torch
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True, warn_only=True)
from handful.cli import main
sys.argv = ["handful", *sys.argv[1:]]
main()
"""


def commands() -> Iterator[tuple[str, list[str]]]:
    """(name, arguments) of every command, in an order in which what one needs is there."""
    few = ["digits", "--per-class", "4", "--precision", "fp32"]
    none = ["--estimate", "none"]
    for name in TRAINED:
        yield f"fit-{name}", ["fit", *few, *none, "--method", name, "--set", SHORT]
    for name in FITTED:
        yield f"fit-{name}", ["fit", "photos", *none, "--method", name, "--precision", "fp32"]
    tuned = ["--method", "fine_tuning", "--set", SHORT, "--size", "64"]
    yield "fit-fine_tuning", ["fit", "photos", *none, *tuned, "--precision", "fp32"]
    for name in LABEL_FREE:
        at = ["photos", *none] if name == "cmc" else [*few, *none]
        short = ["--set", SHORT, "--set", "then=features"]
        yield f"fit-{name}", ["fit", *at, "--method", name, *short, "--precision", "fp32"]
    folds = ["--method", "supervised", "--set", "steps=6"]
    yield "folds-supervised", ["fit", *few, *folds]
    yield "folds-features", ["fit", "photos", "--method", "features", "--precision", "fp32"]
    table = ["--labels", "labels.csv", "--method", "features", "--prior", "unlabeled"]
    yield "labels-and-prior", ["fit", "photos", *table, "--precision", "fp32"]
    after = ["--after", "folds-features", "--seed", "1", "--precision", "fp32"]
    yield "after", ["fit", "photos", *after]
    yield "auto", ["fit", *few, "--budget", "40s"]
    yield "budget", ["fit", *few, "--method", "fixmatch", "--budget", "30s", *none]
    pretrained = ["pretrain", "digits", "--set", SHORT, "--precision", "fp32"]
    yield "pretrained", pretrained
    yield "init", ["fit", *few, *none, "--init", "pretrained", "--method", "supervised"]
    yield "pretrain-budget", [*pretrained[:2], "--method", "vicreg", "--budget", "30s"]
    methods = ["--methods", "supervised,features", "--draws", "2", "--set", f"supervised.{SHORT}"]
    compared = ["digits", "--per-class", "3", *methods, "--precision", "fp32"]
    yield "comparison", ["compare", *compared]
    yield "predictions.csv", ["predict", "folds-features", "photos", "--abstain", "0.7"]
    yield "strange.csv", ["predict", "folds-features", "photos", "--none-of-these"]
    yield "evaluation", ["evaluate", "folds-supervised", "digits"]
    yield "embedding.npz", ["embed", "photos", "--size", "64", "--precision", "fp32"]
    yield "found", ["data", "photos", "--first-labels", "5"]
    yield "report.html", ["report", "folds-features"]
    yield "both.html", ["report", "fit-uda", "fit-fixmatch"]
    yield "compared.html", ["report", "comparison"]


def make_photos(folder: Path) -> None:
    """Three classes of small colour pictures, some without a label, and a table of labels."""
    numbers = np.random.default_rng(0)
    rows = ["file,label"]
    for k, name in enumerate(("blue", "green", "red")):
        for i in range(14):
            pixels = numbers.integers(0, 120, (40, 48, 3))
            pixels[..., 2 - k] += numbers.integers(20, 135)
            place = folder / "photos" / (name if i < 10 else "unlabeled")
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"{name}-{i}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            if i < 8:
                rows.append(f"{path.relative_to(folder / 'photos')},{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def run(name: str, arguments: list[str], folder: Path) -> str:
    """What the command prints, times left out; it ends with 0."""
    environment = os.environ | {"HANDFUL_CACHE": str(folder / ".cache"), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", START.format(tick=TICK), *arguments, "--out", name],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return TIMES.sub("TIME", done.stdout + done.stderr)


def hashed(path: Path) -> str:
    """A hash of what is in the file, times and versions left out."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return digest(*(p for k in sorted(tensors) for p in (k, tensors[k].tobytes())))
    if path.suffix == ".npz":
        found = np.load(path, allow_pickle=False)
        return digest(*(p for k in sorted(found.files) for p in (k, found[k].tobytes())))
    if path.suffix in (".json", ".jsonl"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return digest(*(json.dumps(lasting(json.loads(line)), sort_keys=True) for line in lines))
    if path.suffix in (".html", ".svg", ".csv"):
        text = TIMES.sub("TIME", path.read_text())
        text = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "PICTURE", text)
        return digest(re.sub(r"<dc:date>.*?</dc:date>|id=\"[^\"]*\"|#[a-z0-9]{9,}", "", text))
    return digest(path.read_bytes())


def lasting(found: object) -> object:
    """JSON without what differs between two runs of the same command."""
    if isinstance(found, dict):
        kept = {k: v for k, v in found.items() if k not in VOLATILE | SENTENCES}
        return {k: lasting(v) for k, v in kept.items() if not k.endswith("seconds")}
    if isinstance(found, list):
        return [lasting(value) for value in found]
    return TIMES.sub("TIME", found) if isinstance(found, str) else found


def digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:16]


def all_hashes(only: list[str]) -> dict[str, str]:
    """Name of a command, and of a file that it left → hash."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder)
        for command, arguments in commands():
            if only and command not in only:
                continue
            found[f"{command}: screen"] = digest(run(command, arguments, folder))
            left = folder / command
            files = sorted(left.rglob("*")) if left.is_dir() else [left]
            for path in itertools.filterfalse(Path.is_dir, files):
                found[f"{command}: {path.relative_to(folder)}"] = hashed(path)
            print(command, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("write", "check", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("after", type=Path, nargs="?", help="of compare: the second file")
    parser.add_argument("--kind", choices=("dev", "final"), help="keep a line of the outcome")
    parser.add_argument("--only", nargs="*", default=[], help="names of commands, such as fit-uda")
    given = parser.parse_args()
    if given.what == "compare":
        found = json.loads(given.after.read_text())
    else:
        found = all_hashes(given.only)
    if given.what == "write":
        given.file.write_text(json.dumps(found, indent=1))
        return
    before = json.loads(given.file.read_text())
    if given.only:
        before = {k: v for k, v in before.items() if k.split(": ")[0] in given.only}
    differing = sorted(k for k in before.keys() | found.keys() if before.get(k) != found.get(k))
    print(f"{len(before)} hashes, {len(differing)} differ", *differing, sep="\n  ")
    if given.kind:
        from benchmarks.lib import record

        kinds = Counter(name.rpartition(".")[2].rpartition(": ")[2] for name in differing)
        figures = {"hashes": len(before), "differing": len(differing), "of_which": dict(kinds)}
        record.append("robustness", "frozen-behaviour", given.kind, figures)
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
