"""Run `handful fit` on the labels of a session, and read what it answers.

The fit is a process of its own: it may take all the memory it needs, and the page goes on.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from handful.csv_files import read_csv
from handful.data.source_names import default_run_folder
from handful.errors import HandfulError
from handful.files import read_json
from handful.output import later_folders, next_folder
from handful.pipeline.artifacts import (
    CHECKPOINT,
    COMMAND,
    PREDICTIONS,
    RECORD,
    REPORT,
    RUN_LAYOUT,
)
from handful.pipeline.replacement import NEW, interrupted
from handful.text import FEW, about_right, in_seconds, shell_command

NOTHING_YET = "not started"
LONGEST = 2_000  # characters of a line
WIDTH = 10_000  # columns: the fit breaks no line of what it says, the page does
EARLIER = Path("run")  # where earlier versions put the run of a page
OVERWRITE = "--overwrite"
RUNS = "runs"  # name of the setting that keeps the last command in the journal, by folder
# Absolute folder → the commands that pages began there, as words, the last one last.
Runs = Mapping[str, list[list[str]]]


def runs_of(kept: Iterable[Any]) -> Runs:
    """The runs in a journal, which may be from elsewhere; what is no command is left out.

    Args:
        kept: every value of RUNS in the journal, the last one last.
    """
    found: dict[str, list[list[str]]] = {}
    for one in kept:
        for folder, words in one.items() if isinstance(one, dict) else ():
            commands = found.setdefault(str(folder), [])
            if isinstance(words, list):
                commands.append(list(map(str, words)))
    return {folder: commands for folder, commands in found.items() if commands}


def run_folder(source: str, table: Path, after: Path | None, made: Runs) -> Path:
    """Where the run of a page goes: where `fit` puts its own, or beside a run that is there.

    A run that a page with this label file made is replaced, any other run stays.

    Args:
        after: the run that it goes on from, which stays.
        made: the runs that pages with this label file began.
    """
    if after is None and _by_earlier_version(source, table):
        return EARLIER
    usual = default_run_folder(source) if after is None else after
    places = chain([usual] if after is None else [], later_folders(usual))
    return next(place for place in places if not os.path.lexists(place) or _own(place, made))


def _own(run: Path, made: Runs) -> bool:
    """Whether a page began what is in a folder, finished or not, and nobody else since."""
    begun = made.get(str(run.resolve()))
    if begun is None:
        return False
    ours = [*map(_without_overwrite, begun)]
    commands = [_command(run)] if (run / RECORD).exists() else []
    commands += [_unfinished_command(one) for one in (run, run / NEW) if _unfinished(one)]
    return all(command in ours for command in commands)


def check_replaceable(run: Path, table: Path, made: Runs, overwrite: bool) -> None:
    """HandfulError if Done must not put a run into the folder that was typed as --run.

    Args:
        made: the runs that pages with the label file `table` began.
        overwrite: whether any other run may be replaced.
    """
    if not os.path.lexists(run) or _own(run, made):
        return
    if not run.is_dir():
        raise HandfulError(f"--run is a folder, and {run} is a file; give another name")
    known = _finished(run)
    if not known and not _unfinished(run):
        if any(not path.name.startswith(".") for path in run.iterdir()):
            raise HandfulError(f"{run} holds other files; give --run a folder that is new or empty")
    elif not overwrite:
        state = "finished" if known else "unfinished"
        raise HandfulError(
            f"{run} holds another run, {state}, that no page with {table} began; give another "
            f"--run (--after FOLDER goes on from its labels), or --overwrite to let Done put its "
            f"own in its place"
        )


def _finished(run: Path) -> bool:
    """Whether a folder holds a finished run, also one that was killed while it took its place."""
    return (run / RECORD).exists() or interrupted(run, RUN_LAYOUT)


def _unfinished(run: Path) -> bool:
    return (run / CHECKPOINT).is_dir()


def _command(run: Path) -> list[str] | None:
    """The command that made a run, as words; None where its record does not say it."""
    try:
        record = read_json(run / RECORD)
    except HandfulError:  # damaged
        return None
    command = record.get("command") if isinstance(record, dict) else None
    return _without_overwrite(map(str, command)) if isinstance(command, list) else None


def _unfinished_command(run: Path) -> list[str] | None:
    """The command that began an unfinished run, as words; None where it is not known."""
    try:
        words = read_json(run / CHECKPOINT / COMMAND)
    except (HandfulError, OSError):  # of an earlier version, or damaged
        return None
    return _without_overwrite(map(str, words)) if isinstance(words, list) else None


def _without_overwrite(words: Iterable[str]) -> list[str]:
    return [word for word in words if word != OVERWRITE]


def _by_earlier_version(source: str, table: Path) -> bool:
    """Whether EARLIER holds a run of these images and this label file."""
    made = _command(EARLIER) if (EARLIER / RECORD).exists() else None
    if made is None:
        return False
    words, made = _words(source, table, EARLIER), made[:6]
    try:
        return made[::2] == words[::2] and all(
            Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
            for one, other in zip(made[1::2], words[1::2], strict=True)
        )
    except (OSError, RuntimeError, ValueError):  # the record of a stranger's run names no path
        return False


def _words(source: str, table: Path, run: Path) -> list[str]:
    return ["fit", source, "--labels", str(table), "--out", str(run)]


class Fitting:
    """One fit at a time, and the predictions of the last one."""

    def __init__(
        self,
        source: str,
        table: Path,
        run: Path | None,
        options: list[str],
        after: Path | None = None,
        made: Runs = MappingProxyType({}),
        overwrite: bool = False,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            run: the folder that was asked for; by default `run_folder`.
            options: further options of `fit`, such as --folders or --after.
            made: the runs that pages with this label file began.
            overwrite: whether any other run in the folder that was asked for may be replaced.

        Raises:
            HandfulError: the folder that was asked for holds something that stays.
        """
        self.source, self.table, self.options = source, table, options
        self._asked, self._after, self._overwrite = run, after, overwrite
        self._made = {folder: list(commands) for folder, commands in made.items()}
        self.run = self._place()
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._predictions: tuple[float, dict[str, list[tuple[str, float]]]] | None = None

    def command(self, budget: str) -> list[str]:
        """The command of the fit, as words after `handful`."""
        words = _words(self.source, self.table, self.run)
        if budget:
            in_seconds(budget)
            words += ["--budget", budget]
        if _finished(self.run) or _unfinished(self.run):
            words.append(OVERWRITE)  # an unfinished run of the same labels goes on all the same
        return words + self.options

    def _place(self) -> Path:
        """The folder of the next run; HandfulError if the one that was asked for must stay."""
        if self._asked is None:
            return run_folder(self.source, self.table, self._after, self._made)
        check_replaceable(self._asked, self.table, self._made, self._overwrite)
        return self._asked

    @property
    def made(self) -> dict[str, list[str]]:
        """The last command that was begun in each folder, for the journal."""
        return {folder: commands[-1] for folder, commands in self._made.items()}

    def start(self, budget: str) -> None:
        """Start the fit; HandfulError if one is running, or the budget is no time."""
        with self._lock:
            if self.running:
                raise HandfulError("a fit is running; wait for it, or stop it")
            self.run = self._place()  # another command may have made a run meanwhile
            words = self.command(budget)
            self._made.setdefault(str(self.run.resolve()), []).append(words)
            self.lines, self._stopped = [shell_command(*words)], False
            self._process = subprocess.Popen(
                [sys.executable, "-m", "handful", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env={**os.environ, "NO_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "dumb"},
            )
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """End the fit; it goes on where it was when it is started again."""
        if self._process is not None and self.running:
            self._stopped = True
            self._process.terminate()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def state(self) -> dict[str, Any]:
        """How far the fit is, and what the last one found."""
        code = None if self._process is None else self._process.poll()
        state: dict[str, Any] = {
            "running": self.running,
            "failed": code not in (None, 0) and not self._stopped,
            "stopped": self._stopped,
            "lines": self.lines,
            "run": str(self.run),
            "result": None,
            "report": None,
            "commands": [],
        }
        if not self.running and (self.run / RECORD).exists():
            state["result"] = self._result()
            if (self.run / REPORT).exists():
                state["report"] = str(self.run / REPORT)
            state["commands"] = [
                shell_command("predict", self.run, self.source, "--into", "sorted/"),
                shell_command("predict", self.run, self.source, "--out", "predictions.csv"),
                shell_command("fit", self.source, "--labels", self.table, "--after", self.run,
                              "--out", next_folder(self.run)),
            ]  # fmt: skip
        return state

    def bins(self) -> dict[str, list[tuple[str, float]]]:
        """Class → (image name, confidence) of the images that the last fit answered, surest first.

        Empty without a fit.
        """
        path = self.run / PREDICTIONS
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:
            return {}
        if self._predictions is None or self._predictions[0] != changed:
            found: dict[str, list[tuple[str, float]]] = {}
            for row in read_csv(path):
                if row["label"]:
                    found.setdefault(row["label"], []).append(
                        (row["file"], float(row["confidence"]))
                    )
            for rows in found.values():
                rows.sort(key=lambda pair: -pair[1])
            self._predictions = changed, found
        return self._predictions[1]

    def _result(self) -> dict[str, Any] | None:
        try:
            record = read_json(self.run / RECORD)
            estimate = record["estimate"] or {}
            return {
                "method": record["method"]["name"],
                "labels": record["data"]["labeled"],
                "accuracy": estimate.get("accuracy"),
                "said": about_right(estimate) if estimate else "",
                "few": estimate.get("n", FEW) < FEW,
            }
        except (HandfulError, KeyError, TypeError):
            return None

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip().replace("Ctrl-C", "Stop")  # the button that does the same
            if text:
                self.lines.append(text[:LONGEST])
                del self.lines[1:-200]
