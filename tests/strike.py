"""Processes that signal themselves while they sort. Each imports this module: no pytest here."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.utime"}


@dataclass(frozen=True)
class Strike:
    """A signal that a process sends itself before its n-th change, from 1; 0 for never."""

    change: int = 0
    signal: int = signal.SIGKILL


def _arm(target: str, strike: Strike) -> list[int]:
    """Count the changes below `target` and the parts of copies; send the signal at the n-th."""
    from handful.pipeline.sorting import execute

    count, read = [0], execute._read

    def change() -> None:
        count[0] += 1
        if count[0] == strike.change:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, as without a handler
            os.kill(os.getpid(), strike.signal)

    def watch(event: str, arguments: tuple) -> None:
        changing = event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITING)
        if changing and str(arguments[0]).startswith(target):
            change()

    def part(original) -> bytes:
        change()
        return read(original)

    execute.CHUNK, execute._read = 200, part
    sys.addaudithook(watch)
    return count


def plain(source: str, target: str, labels: dict[str, str]) -> None:
    from handful.pipeline.sorting import sort_into_folders

    names, classes, none = list(labels), list(labels.values()), [""] * len(labels)
    sort_into_folders(Path(source), Path(target), names, classes, none, sorted(set(classes)))


def command(*words: str) -> None:
    import torch

    from handful import cli

    torch.set_num_threads(1)
    sys.argv = ["handful", *words]
    cli.main()


def struck(strike: Strike, target: str, said: str, job, arguments: tuple) -> None:
    with open(said, "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    counter = _arm(target, strike)
    job(*arguments)
    Path(said).write_text(str(counter[0]))
