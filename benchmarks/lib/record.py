"""One line of JSON per result: what was run, where, on which draw, and the figures."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import handful
from benchmarks.lib.arguments import RUN, running
from benchmarks.lib.paths import RESULTS, ROOT


def append(
    file: str, name: str, kind: str, figures: dict[str, Any], command: str = "", **more: Any
) -> dict[str, Any]:
    """Append a line to `benchmarks/results/<file>.jsonl` and return it.

    Args:
        name: the row of a table that the line belongs to.
        kind: "dev" (tuned on, scored on a part of the training images) or "final".
        more: what tells lines of one name apart, such as draw=3.
    """
    if kind not in ("dev", "final"):
        raise ValueError(f"kind is dev or final, got {kind!r}")
    line = {
        "name": name,
        "kind": kind,
        **more,
        "figures": figures,
        "command": command or shown_command(),
        "commit": COMMIT,
        "hardware": hardware(),
        "versions": {
            "handful": handful.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    write(file, line)
    return line


def show(file: str, name: str, kind: str | None, figures: dict[str, Any]) -> None:
    """Print the figures of a row, and `append` its line where a kind is given."""
    if kind:
        append(file, name, kind, figures)
    print(name, figures, flush=True)


def write(file: str, line: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{file}.jsonl", "a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def read(file: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{file}.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def final(file: str, name: str | None = None, *, apart: str = "") -> list[dict[str, Any]]:
    """The last final line of every draw, in the order of the draws: one run again counts once.

    Args:
        apart: lines that differ in this are of different draws, too.
    """
    keys = ("name", "draw", "per_class", "budget", apart)
    lines = [
        line for line in read(file) if line["kind"] == "final" and name in (None, line["name"])
    ]
    return list({tuple(line.get(key) for key in keys): line for line in lines}.values())


def recorded(file: str, name: str, kind: str, draw: int) -> bool:
    """Whether that draw has its line."""
    return any((x["name"], x["kind"], x["draw"]) == (name, kind, draw) for x in read(file))


def shown_command() -> str:
    """The command as anyone can type it: the data folder by its variable, without where to."""
    root, given = os.environ.get("HANDFUL_DATA"), sys.argv[1:]
    if "--out" in given:
        place = given.index("--out")
        given = given[:place] + given[place + 2 :]
    words = [shlex.quote(word) for word in given]
    shown = [word.replace(root, "$HANDFUL_DATA") if root else word for word in words]
    return " ".join([RUN, running(), *shown])


def commit() -> str:
    """The commit, with a + if the code has changed since (results do not count)."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "src", "tests", "pyproject.toml"],
        capture_output=True,
        text=True,
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


COMMIT = commit()  # when the run starts: the tree may move on before its line is written


def hardware() -> str:
    """Processor, cores and threads: what a reader needs to judge a time."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
        model = names[0] if names else model
    bf16 = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no bf16"
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {bf16}"
